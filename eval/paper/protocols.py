"""How the numbers of a table were measured, in sentences, from the protocols that the results carry."""

from collections.abc import Iterable, Mapping
from typing import Any

from eval.paper.evidence import Evidence
from eval.paper.jobs import method_training, resolved
from eval.paper.plan import REFERENCE


def distance_protocol(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """What was compared with what by which extractor; one sentence a protocol, and a warning where n is small."""
    said = []
    for result in results:
        protocol = result["protocol"]
        sentence = (
            f"Distances are {result['label']} of {protocol['n']:,} images to {protocol['n_reference']:,} of split "
            f"{protocol['split']} (seed {protocol['seed']}, {protocol['channels']}, {protocol['quantisation']})."
        )
        if result["below_protocol"]:
            sentence += " Fewer than 10,000 on one side (50,000 against split train), so they are too large."
        if "FID" not in result["label"]:
            sentence += " They are no FID and cannot be compared with the paper's in size, only in order."
        said.append(sentence)
    return list(dict.fromkeys(said))


def likelihood_protocol(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """Images, importance samples and pixel scale of the likelihoods."""
    said = []
    for result in results:
        protocol = result["protocol"]
        said.append(
            f"Likelihoods are of {protocol['n']:,} images of split {protocol['split']}, {protocol['subset']}, with "
            f"{protocol['importance_samples']} importance samples, of pixels in {protocol['pixel_scale']}; q̂ is a "
            f"mixture {protocol['mixture']} fitted to the training codes."
        )
    return list(dict.fromkeys(said))


def training_protocol(evidence: Evidence) -> list[str]:
    """The networks and the budget that all trainings share."""
    plan = evidence.plan
    if not evidence.records:
        return []
    config = resolved(plan, method_training(plan, REFERENCE, plan.seeds[0]))
    model, budget = config.model, plan.budget
    total = budget.stage1_epochs + budget.stage2_epochs
    images = sorted({record.training["images"] for record in evidence.records.values() if record.training})
    seen = f"; {' or '.join(f'{count:,}' for count in images)} images seen" if images else ""
    return [
        f"All trainings share networks and budget, which are ours (the paper's are not public): {model.latent_dim} "
        f"latents unless said otherwise, encoder {list(model.encoder_channels)}, decoder "
        f"{list(model.decoder_channels)}, dense layer {model.hidden}, kernel {model.kernel}, norm {model.norm}, batch "
        f"{config.data.global_batch}, Adam at {config.optimiser.learning_rate:g} ({config.optimiser.schedule}); "
        f"{budget.stage1_epochs:g} epochs of stage 1 and {budget.stage2_epochs:g} of stage 2, or {total:g} of one stage"
        f"{seen}.",
        *([plan.remark] if plan.remark else []),
    ]
