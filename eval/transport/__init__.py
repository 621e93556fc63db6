"""Mean images carried to the spread of real images, component by component of the mixture."""

from eval.transport.fitting import FittedTransport, fit
from eval.transport.transport import Transport

__all__ = ["FittedTransport", "Transport", "fit"]
