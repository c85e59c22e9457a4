"""Tunedeck turns one frozen model into many specialists. Public names load on first use, so importing this is
instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunedeck.comparison.compare import compare
    from tunedeck.comparison.race.race import race
    from tunedeck.comparison.race.result import Race
    from tunedeck.comparison.result import Comparison
    from tunedeck.core.errors import TunedeckError
    from tunedeck.core.text_pair import TextPair
    from tunedeck.data.add_labels import Added, label_add
    from tunedeck.data.settings import DataSettings
    from tunedeck.deck.deck import Deck
    from tunedeck.export.combine import combine_adapters
    from tunedeck.export.merge import save_merged
    from tunedeck.export.onnx.multi import save_onnx_multi
    from tunedeck.export.onnx.save import save_onnx
    from tunedeck.export.sentence_transformers import save_sentence_transformers
    from tunedeck.generation.sampling import Sampling
    from tunedeck.methods.bias.config import BiasConfig
    from tunedeck.methods.bottleneck.config import BottleneckConfig
    from tunedeck.methods.full.config import FullConfig
    from tunedeck.methods.ia3.config import Ia3Config
    from tunedeck.methods.lora.config import LoraConfig
    from tunedeck.methods.prefix_tuning.config import PrefixTuningConfig
    from tunedeck.methods.prompt_tuning.config import PromptTuningConfig
    from tunedeck.planner.deploy import deploy_cost
    from tunedeck.planner.planning import plan
    from tunedeck.tasks.classify.choose import threshold
    from tunedeck.tasks.classify.prediction import Prediction
    from tunedeck.tasks.classify.task import Classify
    from tunedeck.tasks.data_check import DataCheck, data_check
    from tunedeck.tasks.embed.task import Embed
    from tunedeck.tasks.evaluate import evaluate
    from tunedeck.tasks.generate.task import Generate
    from tunedeck.tasks.label_next import NextText, NextTexts, label_next
    from tunedeck.tasks.score.task import Score, ScoreAnswer
    from tunedeck.tasks.tag.task import Entities, Entity, Tag
    from tunedeck.training.config import TrainingSettings
    from tunedeck.training.jobs import Job
    from tunedeck.training.record import TrainingRun
    from tunedeck.training.run import train, train_run

__version__ = "0.1.0"

_HOME = {
    "Added": "data.add_labels",
    "BiasConfig": "methods.bias.config",
    "BottleneckConfig": "methods.bottleneck.config",
    "Classify": "tasks.classify.task",
    "Comparison": "comparison.result",
    "DataCheck": "tasks.data_check",
    "Deck": "deck.deck",
    "Embed": "tasks.embed.task",
    "Entities": "tasks.tag.task",
    "Entity": "tasks.tag.task",
    "FullConfig": "methods.full.config",
    "Generate": "tasks.generate.task",
    "Ia3Config": "methods.ia3.config",
    "Job": "training.jobs",
    "NextText": "tasks.label_next",
    "NextTexts": "tasks.label_next",
    "LoraConfig": "methods.lora.config",
    "Prediction": "tasks.classify.prediction",
    "PrefixTuningConfig": "methods.prefix_tuning.config",
    "PromptTuningConfig": "methods.prompt_tuning.config",
    "Race": "comparison.race.result",
    "Sampling": "generation.sampling",
    "Score": "tasks.score.task",
    "ScoreAnswer": "tasks.score.task",
    "Tag": "tasks.tag.task",
    "TextPair": "core.text_pair",
    "TrainingRun": "training.record",
    "TrainingSettings": "training.config",
    "DataSettings": "data.settings",
    "TunedeckError": "core.errors",
    "combine_adapters": "export.combine",
    "compare": "comparison.compare",
    "data_check": "tasks.data_check",
    "deploy_cost": "planner.deploy",
    "evaluate": "tasks.evaluate",
    "label_add": "data.add_labels",
    "label_next": "tasks.label_next",
    "plan": "planner.planning",
    "race": "comparison.race.race",
    "save_merged": "export.merge",
    "save_onnx": "export.onnx.save",
    "save_onnx_multi": "export.onnx.multi",
    "save_sentence_transformers": "export.sentence_transformers",
    "threshold": "tasks.classify.choose",
    "train": "training.run",
    "train_run": "training.run",
}
__all__ = [
    "Added",
    "BiasConfig",
    "BottleneckConfig",
    "Classify",
    "Comparison",
    "DataCheck",
    "DataSettings",
    "Deck",
    "Embed",
    "Entities",
    "Entity",
    "FullConfig",
    "Generate",
    "Ia3Config",
    "Job",
    "LoraConfig",
    "NextText",
    "NextTexts",
    "Prediction",
    "PrefixTuningConfig",
    "PromptTuningConfig",
    "Race",
    "Sampling",
    "Score",
    "ScoreAnswer",
    "Tag",
    "TextPair",
    "TrainingRun",
    "TrainingSettings",
    "TunedeckError",
    "combine_adapters",
    "compare",
    "data_check",
    "deploy_cost",
    "evaluate",
    "label_add",
    "label_next",
    "plan",
    "race",
    "save_merged",
    "save_onnx",
    "save_onnx_multi",
    "save_sentence_transformers",
    "threshold",
    "train",
    "train_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tunedeck' has no attribute {name!r}")
    return getattr(import_module(f"tunedeck.{_HOME[name]}"), name)
