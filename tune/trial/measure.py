"""What is measured of a trial at its end: distances and likelihood on held-out images."""

from eval.distance.comparison import measure_distance
from eval.images.encoding import encode_split
from eval.likelihood.measurement import measure_likelihood
from eval.questions import DistanceQuestion, LikelihoodQuestion
from eval.run import load_run
from trainer.config.config import Config
from trainer.mixture.run_mixture import fit_run_mixture
from trainer.mixture.settings import Settings
from trainer.process_group import process_group
from tune.sweep_config import MeasureConfig


def measure_trial(config: Config, asked: MeasureConfig) -> None:
    """Writes the run's eval/*.json. All processes of the trial take part; nothing is measured twice."""
    if asked.images == 0 and asked.likelihood_images == 0:
        return
    with process_group(config.device) as ranks:
        for weights in ("stage1", "final") if config.two_stages else ("final",):
            run = load_run(config.folder, weights, ranks.device)
            if asked.mixture:
                for split in (config.data.train_split, config.data.valid_split):
                    encode_split(run, split, ranks)
                fit_run_mixture(str(config.folder), Settings(n_components=asked.mixture), weights=weights, ranks=ranks)
            if asked.images:
                sources = ["q_hat" if asked.mixture else "prior", *(["reconstruction"] if weights == "final" else [])]
                for source in sources:
                    mixture = asked.mixture or DistanceQuestion.mixture
                    question = DistanceQuestion(source=source, n=asked.images, split=asked.split, mixture=mixture)
                    measure_distance(run, question, ranks)
            if asked.likelihood_images:
                measure_likelihood(
                    run,
                    LikelihoodQuestion(
                        images=asked.likelihood_images,
                        samples=asked.likelihood_samples,
                        mixture=asked.mixture,
                        split=asked.split,
                    ),
                    ranks,
                )
