"""How close generated answers come to the wanted ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

_TOKEN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]|\w+", re.UNICODE)


def answer_metrics(answers: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """Return exact_match, rouge_l and chrf, each 0 to 1, means over the answers.

    exact_match ignores case and outer white space. rouge_l is the F1 of the longest common subsequence of tokens (Lin
    2004), words for alphabetic scripts and single characters for Chinese, Japanese and Korean. chrf is sacrebleu's
    sentence chrF2 over 100.
    """
    import sacrebleu  # answering needs neither of them

    pairs = list(zip(answers, wanted, strict=True))
    exact = [answer.strip().lower() == want.strip().lower() for answer, want in pairs]
    chrf = [sacrebleu.sentence_chrf(answer, [want]).score / 100 for answer, want in pairs]
    return {
        "exact_match": sum(exact) / len(pairs),
        "rouge_l": sum(rouge_l(answer, want) for answer, want in pairs) / len(pairs),
        "chrf": sum(chrf) / len(pairs),
    }


def rouge_l(answer: str, wanted: str) -> float:
    """Return F1 of the longest common subsequence of tokens, 0 to 1; two empty texts are equal."""
    from rapidfuzz.distance import LCSseq

    ours, theirs = _TOKEN.findall(answer.lower()), _TOKEN.findall(wanted.lower())
    if not ours or not theirs:
        return float(ours == theirs)
    return 2 * LCSseq.similarity(ours, theirs) / (len(ours) + len(theirs))
