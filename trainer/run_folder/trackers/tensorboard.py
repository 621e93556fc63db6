"""TensorBoard: RUN/tensorboard."""

from collections.abc import Mapping

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from trainer.run_folder.trackers.tracker import TrackedRun


class TensorBoard:
    """Writes event files. TensorBoard drops what earlier ones hold of images that the run sees again."""

    def __init__(self, run: TrackedRun) -> None:
        # What was written at the last checkpoint itself stays.
        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.images + 1 if run.images else 0)
        plain = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in run.settings.items()
        }
        for summary in hparams(plain, {}):
            self._writer._get_file_writer().add_summary(summary)

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """One curve for each name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, images)
        self._writer.flush()  # else a kill would lose two minutes

    def pictures(self, pictures: Mapping[str, Tensor], images: int) -> None:
        """One row of pictures for each name."""
        for name, picture in pictures.items():
            self._writer.add_image(name, picture, images)

    def close(self) -> None:
        """Flushes."""
        self._writer.close()
