"""The protocol on the first screen: poses, and the pixels that count."""

import re
import statistics

from stages.pages.report.results import Results

# Of calibrate.method.
_POSES = {
    "given": "true poses",
    "perturbed": "true poses with noise, then bundle adjustment",
    "sfm": "estimated from the images alone",
    "vggt": "estimated by VGGT, then bundle adjustment",
}


def measured_rows(results: Results) -> list[tuple[str, str]]:
    """(question, answer) of what was measured, the protocol in words instead of its digest."""
    rows = []
    for name, text in results.measured:
        if name == "Protocol":
            rows += [("Poses", _poses(results)), ("Pixels", _pixels(results, text))]
        else:
            rows.append((name, text.replace("`", "")))
    return rows


def _poses(results: Results) -> str:
    of_scenes = [results.calibration.get(scene, {}) for scene in results.downstream]
    methods = dict.fromkeys(str(row["method"]) for row in of_scenes if "method" in row)
    sources = " and ".join(_POSES.get(name, name) for name in methods)
    errors = [
        f"{statistics.mean(known):.2g}{unit}"
        for key, unit in (("rotation_error_deg", "\N{DEGREE SIGN}"), ("centre_error_m", " m"))
        if (known := [row[key] for row in of_scenes if row.get(key) is not None])
    ]
    error = f", mean error {' and '.join(errors)}" if errors else ""
    parts = [f"source cameras: {sources}{error}"] if sources else []
    return "; ".join([*parts, "target cameras: true poses in that frame, not fitted to the images"])


def _pixels(results: Results, protocol: str) -> str:
    sizes = " and ".join(dict.fromkeys(re.findall(r"\d+x\d+(?:\+\d+x\d+)*", protocol)))
    whole = f"whole images of {sizes} px" if sizes else "whole images"
    means = results.means[results.study.methods[0]]
    if means.get("crop_psnr") is None:
        return f"{whole}; no masks of people"
    return f"{whole}; people: the box around their masks, and the masks' pixels"
