"""Default and winner again, with fresh seeds, on all training images; the test images are looked at once."""

from dataclasses import asdict, dataclass
import json
from pathlib import Path

from raytricks.config import ExperimentConfig
from raytricks.files import write_atomically
from raytricks.study.results import retrainable, trial_config
from raytricks.tuning.certificate import make_certificate
from raytricks.tuning.outcome import Arm, Certificate, StudyResult, TrialOutcome
from raytricks.tuning.study_directory import CERTIFICATE_FILE


@dataclass(frozen=True)
class Retraining:
    """The runs of a certificate: each arm with each seed, arms side by side.

    Attributes:
        arms: default and, when it is another trial, winner -> the trial's number.
        jobs: (arm, seed) of run 0, 1, ...
    """

    arms: dict[str, int]
    seeds: tuple[int, ...]
    jobs: tuple[tuple[str, int], ...]
    configs: tuple[ExperimentConfig, ...]


def plan_retraining(final: ExperimentConfig, result: StudyResult) -> Retraining | None:
    """Return what is to be trained again; None when nothing was found or no seeds are wanted.

    Args:
        final: as of `retrainable`.
    """
    num_seeds = final.tune.retrain_seeds
    if result.best is None or num_seeds == 0:
        return None
    arms = {"default": 0} if result.best == 0 else {"default": 0, "winner": result.best}
    seeds = tuple(final.seed + 1 + number for number in range(num_seeds))
    jobs = tuple((arm, seed) for seed in seeds for arm in arms)
    study_dir = Path(result.study_dir)
    configs = tuple(_config(retrainable(final, trial_config(study_dir, arms[arm])), seed) for arm, seed in jobs)
    return Retraining(arms, seeds, jobs, configs)


def certify(
    retraining: Retraining, outcomes: tuple[TrialOutcome, ...], result: StudyResult, num_test_images: int
) -> Certificate:
    """Compare the arms by their finished runs, and write the certificate."""
    trials = {trial.number: trial for trial in result.trials}
    arms = {
        name: Arm(
            name="default" if name == "default" else "winner",
            values=trials[number].values,
            search_top1=trials[number].score,
            seeds=retraining.seeds,
            test_top1=tuple(
                outcome.score
                for outcome, (arm, _) in zip(outcomes, retraining.jobs, strict=True)
                if arm == name and outcome.score is not None
            ),
        )
        for name, number in retraining.arms.items()
    }
    certificate = make_certificate(arms["default"], arms.get("winner", arms["default"]), num_test_images)
    write_atomically(Path(result.study_dir) / CERTIFICATE_FILE, json.dumps(asdict(certificate), indent=1).encode())
    return certificate


def _config(config: ExperimentConfig, seed: int) -> ExperimentConfig:
    logging = config.logging.model_copy(update={"evaluate_every": config.recipe.epochs})
    return config.model_copy(update={"seed": seed, "logging": logging})
