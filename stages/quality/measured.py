"""What a comparison measured, for a reader who sees one output only.

`measured` collects the facts, which metrics/delta.json keeps as `study.measured`; every other
output says them by `measured_rows`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stages.quality.comparison import Evaluations
from stages.quality.keys import MEASURES, quantity
from stages.quality.noise import floor_words
from stages.run.methods import TUNED, methods_of
from stages.run.plurals import counted

_DEMO = "embedded demo: ray-traced people"
# Of data that users bring; a source is here unless its scenes are what it is named after.
_WORDS = {
    "demo": _DEMO,
    "hi4d": "own sequences in Hi4D's layout",
    "easyvolcap": "sequences in EasyVolcap's layout",
    "transforms": "sequences in nerfstudio's layout",
    "mvhumannet": "MVHumanNet",
    "actorshq": "ActorsHQ",
    "imported": "samples of another program",
}
# Of `protocol`: what `evaluate.masks` measured.
_MASKS = {
    "masks ignore": "no masks",
    "masks auto": "people's masks where a scene has them",
    "masks people": "people's masks",
}
_TERMS = {"l2": "L2", "lpips": "LPIPS", "gram": "Gram", "ssim": "(1 - SSIM)"}
_OF_NET = ("lpips", "gram")

_TARGETS = "target cameras at their given poses, carried into the estimated frame by a similarity"

Facts = Mapping[str, Any]


def measured(
    evaluations: Evaluations,
    scenes: Sequence[str],
    sources: Mapping[str, str],
    fixer: Facts,
    tuning: Facts,
) -> dict[str, Any]:
    """The facts of a comparison; those that are not known are absent.

    Args:
        evaluations: Of all scenes and methods.
        scenes: The downstream scenes.
        sources: `source` of every scene in the catalogue, such as demo.
        fixer: The untuned fixer and how images pass through it; empty without a fixer.
        tuning: Numbers of the tuning, as in metrics/tune.json; empty without them.
    """
    rows = [evaluations.of(scene, evaluations.methods[0]) for scene in scenes]
    views = [list(row.views) for row in rows]
    protocols = [str(row.means["protocol"]) for row in rows]
    nets = dict.fromkeys(net for one in protocols for net in re.findall(r"lpips ([^,]+)", one))
    is_tuned = bool(methods_of(TUNED, evaluations.methods))
    facts = {
        "data": data_words(scenes, sources),
        "size": _range(size for one in protocols for size in re.findall(r"^\d+x\d+", one)),
        "scenes": len(scenes),
        "timestamps": _range(len({time for time, _ in one}) for one in views),
        "target_cameras": _range(len({camera for _, camera in one}) for one in views),
        "views": sum(map(len, views)),
        "lpips": " and ".join(nets),
        "missing": missing_words(tuning, [row.means.get("lpips_note") for row in rows]),
        "protocol": " | ".join(dict.fromkeys(re.sub(r" [0-9a-f]{8}\b", "", p) for p in protocols)),
        **fixer,
        "parameters": tuning.get("parameters"),
        "tuned": tuning_words(tuning) or ("not recorded" if is_tuned else ""),
        "reference_counts": reference_counts(tuning),
    }
    return {key: value for key, value in facts.items() if value not in (None, "")}


def data_words(scenes: Iterable[str], sources: Mapping[str, str]) -> str:
    """What the images of scenes are.

    >>> data_words(["hi4d_pair15_fight", "lab"], {"hi4d_pair15_fight": "hi4d", "lab": "hi4d"})
    "Hi4D and own sequences in Hi4D's layout"
    """
    kinds = []
    for scene in scenes:
        source = sources.get(scene, "")
        is_hi4d = source == "hi4d" and scene.startswith("hi4d_")
        kinds.append("Hi4D" if is_hi4d else _WORDS.get(source, source))
    return " and ".join(filter(None, dict.fromkeys(kinds)))


def parameter_words(count: int) -> str:
    """A number of parameters.

    >>> parameter_words(1_225_859), parameter_words(949_000_000), parameter_words(1_290_000_000)
    ('1.2 M parameters', '949 M parameters', '1.29 G parameters')
    """
    if count >= 1e9:
        return f"{count / 1e9:.3g} G parameters"
    return f"{count / 1e6:.0f} M parameters" if count >= 1e8 else f"{count / 1e6:.1f} M parameters"


def loss_words(losses: Facts) -> str:
    """The terms that taught a fixer, with their weights.

    >>> loss_words({"l2": 1.0, "lpips": 0.1, "gram": 0.0, "net": "alex"})
    '1 L2 + 0.1 LPIPS (alex)'
    >>> loss_words({"l2": 1.0, "lpips": 0.0, "gram": 0.0, "net": None})
    '1 L2'
    """
    net = f" ({losses['net']})" if losses.get("net") else ""
    terms = [
        f"{losses[key]:g} {name}{net if key in _OF_NET else ''}"
        for key, name in _TERMS.items()
        if losses.get(key)
    ]
    return " + ".join(terms)


def other_losses(tuning: Facts) -> str:
    """Why other losses than those of the params tuned a fixer; empty if these did.

    >>> other_losses({"losses": {"l2": 1.0}})
    ''
    >>> other_losses({"losses_note": "no weights of vgg; LPIPS uses alex"}).partition(". ")[0]
    'no weights of vgg; LPIPS uses alex'
    """
    if not tuning.get("losses_note"):
        return ""
    return (
        f"{tuning['losses_note']}. Other losses than `tune.losses` tuned the fixer: its numbers do "
        "not compare with those of a run that has the weights"
    )


def missing_words(tuning: Facts, lpips_notes: Iterable[str | None]) -> str:
    """What a run lacked of the weights of LPIPS, and what that changed; empty if nothing.

    >>> missing_words({"losses": {"l2": 1.0}}, [None])
    ''
    >>> missing_words({}, ["no weights of alex: no network", None])
    'LPIPS was not measured: no weights of alex: no network'
    """
    notes = dict.fromkeys(note for note in lpips_notes if note)
    others = [note for note in notes if note not in tuning.get("losses_note", "")]
    why = f": {'; '.join(others)}" if others else ", for the same reason"
    parts = [f"LPIPS was not measured{why}"] if notes else []
    return "; ".join([*_known(other_losses(tuning)), *parts])


def tuning_words(tuning: Facts) -> str:
    """How a fixer was tuned.

    >>> tuning_words({"train_pairs": 24, "train_views": 8, "steps": 100, "data": "Hi4D"})
    '24 pairs (Hi4D), of 8 distinct target views, 100 steps'
    """
    if not tuning:
        return ""
    of = f" ({tuning['data']})" if tuning.get("data") else ""
    parts = [f"{counted(tuning['train_pairs'], 'pair')}{of}"] if "train_pairs" in tuning else []
    views = tuning.get("train_views", tuning.get("train_pairs"))
    if views != tuning.get("train_pairs"):
        parts += [f"of {counted(views, 'distinct target view')}"]
    parts += [counted(tuning["steps"], "step")] if "steps" in tuning else []
    parts += [f"on {tuning['worked_on']}"] if "worked_on" in tuning else []
    losses = f"; loss {loss_words(tuning['losses'])}" if "losses" in tuning else ""
    return ", ".join(parts) + losses


def reference_counts(tuning: Facts) -> bool | None:
    """Whether withholding the reference changes a mean of the tuned fixer; None if not recorded.

    The means are those of the tuning's validation samples, to the digits that are printed.

    >>> reference_counts({"tuned": {"psnr": 21.0481}, "tuned_withheld": {"psnr": 21.0479}})
    False
    >>> reference_counts({"tuned": {"psnr": 21.05}, "tuned_withheld": {"psnr": 20.9}})
    True
    """
    pairs = [
        (quantity(name, tuning["tuned"][name]), quantity(name, tuning["tuned_withheld"][name]))
        for name in MEASURES
        if all(tuning.get(row, {}).get(name) is not None for row in ("tuned", "tuned_withheld"))
    ]
    return any(used != withheld for used, withheld in pairs) if pairs else None


def protocol_words(protocol: str) -> str:
    """A protocol without its number of views, which is of one scene, and with masks in words.

    >>> protocol_words("192x256, 4 views, lpips alex, masks auto | 192x256, 6 views, lpips alex")
    "192x256, lpips alex, people's masks where a scene has them | 192x256, lpips alex"
    """
    protocol = re.sub(r", \d+ views\b", "", protocol)
    for key, words in _MASKS.items():
        protocol = protocol.replace(key, words)
    return " | ".join(dict.fromkeys(protocol.split(" | ")))


def measured_rows(delta: Facts) -> list[tuple[str, str]]:
    """(question, answer) of everything that a reader must know, from metrics/delta.json."""
    facts = delta["study"].get("measured", {})
    if not facts:
        return []
    rows = [
        ("Missing", facts.get("missing", "")),
        ("Data", ", ".join(_known(facts.get("data"), _px(facts)))),
        ("Sample", _sample(facts)),
        ("Fixer", _fixer(facts)),
        ("Tuning", facts.get("tuned", "none")),
        ("Reference", _reference(facts)),
        ("Resolution of use", facts.get("used_on", "")),
        ("LPIPS net", _net(facts)),
        ("Protocol", f"{protocol_words(facts['protocol'])}; {_TARGETS}"),
        ("Noise floor", floor_words(delta.get("noise_floor"))),
        ("Strength", strength_words(delta)),
    ]
    return [(name, text) for name, text in rows if text]


def strength_words(delta: Facts) -> str:
    """The strength of the headline's fixed views, and what chose it."""
    study = delta["study"]
    strength = study.get("strength")
    if strength is None:
        return ""
    what = {0: " (the raw render)", 1: " (the fixed view as it is)"}.get(strength, " (a blend)")
    chosen_on = study.get("strength_chosen_on")
    why = "not chosen, because no internal-eval scene was evaluated"
    if chosen_on:
        scenes = len(chosen_on.split(", "))
        why = f"highest PSNR on {counted(scenes, 'internal-eval scene')}, {chosen_on}"
        if second := study.get("strength_second"):
            why += f", by {second['margin']:.3f} dB over strength {second['strength']:g}"
    return f"{strength:g}{what} of {study['subject']}; {why}"


def _sample(facts: Facts) -> str:
    scenes = facts["scenes"]
    return (
        f"{counted(scenes, 'downstream scene')}, each with {facts['timestamps']} "
        f"timestamp{'s' * (facts['timestamps'] != '1')} and {facts['target_cameras']} target "
        f"camera{'s' * (facts['target_cameras'] != '1')}: n = {counted(facts['views'], 'view')}; "
        f"intervals over n = {counted(scenes, 'scene')}"
    )


def _reference(facts: Facts) -> str:
    if facts.get("reference_counts") is not False:
        return ""
    return (
        "without effect: on the samples of the internal-eval scenes the tuned fixer has the same "
        "means with its reference withheld"
    )


def _fixer(facts: Facts) -> str:
    count = facts.get("parameters")
    parameters = parameter_words(count) if count else None
    return ", ".join(_known(facts.get("fixer"), parameters, facts.get("fixer_trained")))


def _net(facts: Facts) -> str:
    net = facts.get("lpips", "")
    return "none, LPIPS was not measured" if net in ("", "none") else net


def _px(facts: Facts) -> str | None:
    return f"{facts['size']} px" if "size" in facts else None


def _known(*parts: str | None) -> list[str]:
    return [part for part in parts if part]


def _range(values: Iterable[Any]) -> str:
    """Equal values once, others as `2 to 5`; sizes in their order of appearance."""
    found = list(dict.fromkeys(values))
    if all(isinstance(value, int) for value in found):
        found.sort()
        found = found if len(found) < 3 else [found[0], found[-1]]
        return " to ".join(map(str, found))
    return " and ".join(map(str, found))
