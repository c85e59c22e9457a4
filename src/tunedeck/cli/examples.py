"""An example of every command, which its help shows and the tests run."""

from __future__ import annotations

_MODEL, _ADAPTER = "--model bundled:all-minilm-l6-v2", "--adapter runs/reviews/adapter"

EXAMPLES = {
    "demo": "tunedeck demo",
    "fetch": "tunedeck fetch all-minilm-l6-v2",
    "plan": "tunedeck plan --model qwen-7b --data reviews.csv --gpu a100,4090",
    "data check": "tunedeck data check reviews.csv",
    "train": f"tunedeck train {_MODEL} --data reviews.csv --out runs/reviews",
    "compare": f"tunedeck compare {_MODEL} --data reviews.csv --methods lora,prompt-tuning",
    "race": "tunedeck race reviews.csv --minutes 15",
    "eval": f"tunedeck eval {_ADAPTER} --data reviews.csv",
    "threshold": "tunedeck threshold runs/reviews/adapter --data held-out.csv --precision 0.95",
    "label next": "tunedeck label next --pool reviews.csv --n 20 --out to-label.csv",
    "label add": "tunedeck label add labelled.csv --data reviews.csv --out reviews-2.csv",
    "predict": f"tunedeck predict {_ADAPTER} --file reviews.csv --out predicted.csv",
    "chat": "tunedeck chat --model bundled:smollm2-135m-instruct",
    "embed": f"tunedeck embed {_MODEL} --file reviews.csv --out vectors.npy",
    "adapters list": "tunedeck adapters list runs",
    "adapters show": "tunedeck adapters show runs/reviews/adapter",
    "adapters convert": "tunedeck adapters convert runs/reviews/adapter converted --to peft",
    "adapters merge": "tunedeck adapters merge runs/reviews/adapter runs/tweets/adapter --out merged-adapter",
    "export merge": f"tunedeck export merge {_ADAPTER} --out merged",
    "export peft": f"tunedeck export peft {_ADAPTER} --out for-peft",
    "export adapterhub": f"tunedeck export adapterhub {_ADAPTER} --out for-adapterhub",
    "export sentence-transformers": "tunedeck export sentence-transformers --adapter runs/search/adapter --out st",
    "export onnx": f"tunedeck export onnx {_ADAPTER} --out reviews-onnx",
    "export gguf-lora": "tunedeck export gguf-lora --adapter runs/chat/adapter --out chat.gguf",
    "export vllm": "tunedeck export vllm --adapter runs/chat/adapter --out for-vllm",
    "export card": f"tunedeck export card {_ADAPTER} --out card --licence apache-2.0",
    "serve": "tunedeck serve --adapters runs",
    "ui": "tunedeck ui --folder my-work",
    "schema": "tunedeck schema",
    "explain": "tunedeck explain overfitting",
    "doctor": "tunedeck doctor",
    "deploy-cost": "tunedeck deploy-cost --model qwen-7b --adapters 20",
}
