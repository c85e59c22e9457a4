"""How a card says that its adapter is loaded: Python for tunedeck, and for PEFT or AdapterHub where they can."""

from __future__ import annotations

from pathlib import Path

from tunedeck.core.i18n import say
from tunedeck.export.markdown import code_block
from tunedeck.formats.manifest import Manifest

_CLASSES = {
    "classify": ("td.Classify()", "AutoModelForSequenceClassification"),
    "generate": ("td.Generate()", "AutoModelForCausalLM"),
    "embed": ("td.Embed()", "AutoModel"),
}
_CALLS = {"classify": "deck.predict", "generate": "deck.generate", "embed": "deck.embed"}


def loading(name: str, form: str, manifest: Manifest) -> str:
    """The code to load an adapter folder called `name`, as Markdown; its words are Python literals."""
    kind, reference = str(manifest.task.get("kind")), manifest.base.reference
    base = Path(reference).name if Path(reference).is_absolute() else reference
    task, auto_class = _CLASSES[kind]
    own = [
        "import tunedeck as td",
        "",
        f"deck = td.Deck.load({base!r}, {task})",
        f'deck.load_adapter("PATH/TO/THIS/FOLDER", name={name!r})',
        f'{_CALLS[kind]}(["..."], adapter={name!r})',
    ]
    parts = [code_block("python", "\n".join(own))]
    if form in ("peft", "adapterhub") and not reference.startswith(("bundled:", "ms:")) and not base.endswith(".gguf"):
        parts += [say("With {library}:", library=form), code_block("python", _theirs(form, base, auto_class, manifest))]
    return "\n\n".join(parts)


def _theirs(form: str, base: str, auto_class: str, manifest: Manifest) -> str:
    labels = manifest.task.get("labels")
    count = f", num_labels={len(labels)}" if labels else ""
    load = f"{auto_class}.from_pretrained({base.removeprefix('hf:')!r}{count})"
    if form == "peft":
        return "\n".join(
            [
                "from peft import PeftModel",
                f"from transformers import {auto_class}",
                "",
                f'model = PeftModel.from_pretrained({load}, "PATH/TO/THIS/FOLDER")',
            ]
        )
    return "\n".join(
        [
            "import adapters",
            f"from transformers import {auto_class}",
            "",
            f"model = {load}",
            "adapters.init(model)",
            'model.load_adapter("PATH/TO/THIS/FOLDER", set_active=True)',
        ]
    )
