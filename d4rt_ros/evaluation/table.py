"""Metrics as lines to read: the model, what costs nothing, and their ratio."""

from __future__ import annotations

from collections.abc import Mapping

# metric, its baseline, what it is
ROWS = (
    ("absrel", "absrel_constant", "depth AbsRel, one scale a window; constant depth"),
    ("absrel_shift", "absrel_shift_constant", "depth AbsRel, scale and shift; constant depth"),
    ("delta125", "delta125_constant", "depth within 25%; constant depth"),
    ("cloud_l1", "cloud_l1_constant", "points, mean L1, m; constant depth"),
    ("rot_deg", "rot_deg_still", "rotation over the window, degrees; camera stands still"),
    ("ate", "ate_still", "camera ATE after Sim(3), m; camera stands still"),
    ("rpe_translation", "rpe_translation_still", "camera RPE, m; camera stands still"),
    ("rpe_rotation_deg", "rpe_rotation_deg_still", "camera RPE, degrees; camera stands still"),
    ("focal_err", "focal_err_default", "focal length, relative; 70 degrees wide"),
    ("track_px", "track_px_still", "median track error, px of 256; points stay"),
    ("visibility_acc", "visibility_acc_always", "visibility right; always visible"),
    ("aj", "aj_still", "3D average Jaccard; points stay"),
    ("apd", "apd_still", "3D points within thresholds; points stay"),
    ("oa", "oa_still", "occlusion accuracy; always visible"),
)


def table(scores: Mapping[str, float]) -> str:
    """The metrics that `scores` (of `evaluate`) holds, one a line, beside their baselines."""
    lines = [f"{'':18}{'model':>10}{'trivial':>10}{'ratio':>8}"]
    for name, baseline, meaning in ROWS:
        if name not in scores:
            continue
        mine, trivial = scores[name], scores[baseline]
        ratio = f"{mine / trivial:8.2f}" if trivial > 0 else f"{'-':>8}"
        lines.append(f"{name:18}{mine:10.4g}{trivial:10.4g}{ratio}  {meaning}")
    return "\n".join(lines)
