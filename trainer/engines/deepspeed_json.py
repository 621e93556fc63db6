"""DeepSpeed's own JSON, checked before anything is started: a section that would not act is refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic

from data_shards.io.configuration import shown
from data_shards.io.errors import InputError
from data_shards.io.likeness import nearest
from data_shards.io.text import read_settings

# Fields that follow from the trainer's own configuration, and those of the configuration.
_OURS = {
    "optimizer": "optimiser",
    "scheduler": "optimiser.schedule",
    "train_batch_size": "data.global_batch",
    "train_micro_batch_size_per_gpu": "data.global_batch",
    "gradient_accumulation_steps": "engine.grad_accumulation_steps",
    "gradient_clipping": "optimiser.max_grad_norm",
    "fp16": "engine.precision",
    "bf16": "engine.precision",
    "amp": "engine.precision",
    "data_types": "engine.precision",
    "torch_autocast": "engine.precision",
    "compile": "engine.compile",
    "zero_allow_untested_optimizer": "optimiser",
    "zero_force_ds_cpu_optimizer": "optimiser",
}
# The others that act on a model without pipeline, experts or layers of DeepSpeed's own, and the type of each.
_SECTIONS: dict[str, tuple[type, str]] = {
    "zero_optimization": (dict, "a section"),
    "comms_logger": (dict, "a section"),
    "flops_profiler": (dict, "a section"),
    "steps_per_print": (int, "a whole number"),
    "wall_clock_breakdown": (bool, "true or false"),
    "memory_breakdown": (bool, "true or false"),
    "dump_state": (bool, "true or false"),
    "prescale_gradients": (bool, "true or false"),
    "gradient_predivide_factor": (float, "a number"),
    "communication_data_type": (str, "a text such as fp32"),
}
# The moments are torch's own Adam's, on the device of the weights.
_OFFLOADED = ("offload_optimizer", "offload_param", "cpu_offload", "cpu_offload_params", "cpu_offload_use_pin_memory")


def read_json(path: str) -> dict[str, Any]:
    """DeepSpeed's JSON. Raises InputError, in one line with the field, for whatever in it is wrong or would not act."""

    def refuse(reason: str) -> InputError:
        return InputError(f"{path}: {reason}", parameter="engine.deepspeed_config")

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if twice := [name for name in names if names.count(name) > 1]:
            raise refuse(f"{twice[0]} stands there twice; leave one of them")
        return dict(pairs)

    def finite(text: str) -> float:
        raise refuse(f"{text} is not a finite number; use one")

    if not Path(path).is_file():
        raise refuse("is not a file; use one of trainer/configs/deepspeed")
    try:
        content = json.loads(read_settings(path), object_pairs_hook=once, parse_constant=finite)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise refuse(f"is not JSON ({error}); see trainer/configs/deepspeed") from error
    if not isinstance(content, dict):
        raise refuse("is not a JSON object; see trainer/configs/deepspeed")
    for name, value in content.items():
        if name in _OURS:
            raise refuse(f"{name} follows from the trainer's own {_OURS[name]}; remove it")
        if name not in _SECTIONS:
            near = nearest(name, _SECTIONS)
            raise refuse(f"{name} is not a section that acts here; use {near or 'one of ' + ', '.join(_SECTIONS)}")
        kind, words = _SECTIONS[name]
        is_number = kind is float and isinstance(value, int) and not isinstance(value, bool)
        if not is_number and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
            raise refuse(f"{name}: {shown(value)} is not {words}; use {words}")
    if reason := _wrong_in_zero(content.get("zero_optimization", {})):
        raise refuse(f"zero_optimization.{reason}")
    return content


def _wrong_in_zero(section: dict[str, Any]) -> str:
    """What is wrong with the section, after the name of the field; empty where nothing is."""
    for name in _OFFLOADED:
        if section.get(name):
            return f"{name}: moments and weights stay on the device here; remove it"
    stage = section.get("stage", 0)
    if isinstance(stage, bool) or stage not in (0, 1, 2, 3):
        return f"stage: {shown(stage)} is not a stage of ZeRO; use 0, 1, 2 or 3"
    # Imported here: it takes seconds.
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    try:
        DeepSpeedZeroConfig(**section)
    except pydantic.ValidationError as error:
        mistake = error.errors(include_url=False)[0]
        name = ".".join(map(str, mistake["loc"]))
        if mistake["type"] == "extra_forbidden":
            return f"{name}: is not a field; use {nearest(name, DeepSpeedZeroConfig.model_fields) or 'no such field'}"
        return f"{name}: {shown(mistake['input'])} is not right ({mistake['msg']}); use another value"
    except (TypeError, ValueError, AssertionError) as error:
        return f"{' '.join(str(error).split())}"
    return ""
