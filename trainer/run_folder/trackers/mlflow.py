"""MLflow. Its own variables choose where to: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME; else RUNS/mlruns."""

import os
import time
from collections.abc import Mapping
from pathlib import Path

import mlflow
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from PIL import Image
from torch import Tensor

from trainer.run_folder.trackers.identity import identity
from trainer.run_folder.trackers.tracker import TrackedRun

_EXPERIMENT = "two-stage-sigma-vae"
_LONGEST_PARAM = 500


class MLflow:
    """One run of MLflow for one run folder, which each start goes on with."""

    def __init__(self, run: TrackedRun) -> None:
        # MLflow notes where files lie by their whole path, so they are not in the run folder, which may be moved.
        local = (run.folder.absolute().parent / "mlruns").as_uri()
        # Without this MLflow expects a data base rather than its plain files.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = mlflow.MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", local))
        self._folder = run.folder
        self._id = identity(run.folder, "mlflow", lambda: self._new(run.name), self._is_known)
        self._client.update_run(self._id, status="RUNNING")
        known = self._client.get_run(self._id).data.params
        changed = {name: str(value)[:_LONGEST_PARAM] for name, value in run.settings.items() if name not in known}
        self._client.log_batch(self._id, params=[Param(name, value) for name, value in changed.items()])

    def _is_known(self, run: str) -> bool:
        try:
            self._client.get_run(run)
        except MlflowException:
            return False  # it is in another store
        return True

    def _new(self, name: str) -> str:
        wanted = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        found = self._client.get_experiment_by_name(wanted)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(wanted)
        return str(self._client.create_run(experiment, run_name=name).info.run_id)

    def numbers(self, values: Mapping[str, float], images: int) -> None:
        """Numbers over images."""
        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, images) for name, value in values.items()])

    def pictures(self, pictures: Mapping[str, Tensor], images: int) -> None:
        """PNG files named by images."""
        for name, picture in pictures.items():
            path = Path(name)
            local = self._folder / f".{path.name}-{images:012d}.png"
            try:
                Image.fromarray(picture.expand(3, -1, -1).permute(1, 2, 0).numpy()).save(local)
                self._client.log_artifact(self._id, str(local), str(path))
            finally:
                local.unlink(missing_ok=True)

    def close(self) -> None:
        """Ends this start of the run."""
        self._client.set_terminated(self._id)
