"""What is raised for an image that cannot be used."""


class BadImage(Exception):
    """The bytes of one image cannot be used; the message says why."""
