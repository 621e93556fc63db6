"""Which fields of a trained run may have other values when it goes on: a new field must be put in one of the lists."""

import re
from pathlib import Path

from data_shards.io.configuration import leaf_fields
from trainer.config.config import Config
from trainer.config.what_may_change import FREE_TO_CHANGE, is_changeable
from trainer.updates import advice

DECIDED = {
    # Where and how a run is carried out.
    "freely": """
        name runs device
        data.shards data.workers data.on_device data.substitutes data.patience_seconds data.cache_bytes data.cache_dir
        engine.name engine.deepspeed_config engine.precision engine.memory_format engine.compile
        engine.cuda_graphs engine.grad_accumulation_steps engine.deterministic
        checkpoint.every_images checkpoint.keep_last checkpoint.walltime_minutes checkpoint.bad_steps
        log.every_images log.to log.profile_steps
    """,
    # How fast and how long it goes on; what was learnt so far stays what it was.
    "with --allow-change": """
        data.valid_images
        objective.kl_warmup_images
        variance.learning_rate variance.smoothing_images variance.min_variance
        stage1.max_epochs stage1.min_images stage1.eps stage1.patience stage1.check_images stage1.smoothing
        stage1.restore_best
        stage2.max_epochs stage2.min_images stage2.eps stage2.patience stage2.check_images stage2.smoothing
        stage2.restore_best
        optimiser.learning_rate optimiser.schedule optimiser.final_fraction optimiser.stage2_fraction
        optimiser.warmup_images optimiser.switch_warmup_images optimiser.at_switch optimiser.max_grad_norm
    """,
    # What the weights, the order of images or the numbers of the log mean: another value is another run.
    "never": """
        seed
        data.train_split data.valid_split data.global_batch data.flip
        model.latent_dim model.encoder_channels model.decoder_channels model.kernel model.hidden model.norm
        model.activation model.residual_blocks
        objective.name objective.sigma2 objective.dip_off_diagonal objective.wae_weight
        variance.update variance.initial variance.floor variance.beta_nll variance.family
        optimiser.betas optimiser.ema_images
    """,
}


def may_change(name: str) -> str:
    if name in FREE_TO_CHANGE or name.partition(".")[0] in FREE_TO_CHANGE:
        return "freely"
    return "with --allow-change" if is_changeable(name) else "never"


def test_of_each_field_it_is_decided_whether_a_trained_run_may_go_on_with_another_value():
    decided = {name: how for how, names in DECIDED.items() for name in names.split()}
    assert decided == {name: may_change(name) for name in leaf_fields(Config)}


def test_advice_can_be_followed():
    text = Path(advice.__file__).read_text()
    named = [name for name in leaf_fields(Config) if re.search(rf"\b{re.escape(name)}\b", text)]
    assert len(named) >= 5
    assert "never" not in {may_change(name) for name in named}
