"""The latent space by class: where the codes of each class lie, and what its mean code looks like."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.collections import PathCollection
from torch import Tensor

from eval.report.charts import MUTED, figure, plain, svg

MOST_CLASSES = 10
"""Classes that have a colour of their own; the others are grey together."""


def largest_classes(labels: Sequence[str]) -> list[str]:
    """Up to MOST_CLASSES classes with the most images, in the order of their names."""
    return sorted(name for name, _ in Counter(labels).most_common(MOST_CLASSES))


def class_figure(codes: Tensor, labels: Sequence[str]) -> tuple[bytes, str]:
    """Posterior means, (N, D), as points in a plane, a colour for each class: an SVG file, and what the plane is.

    For two latents the plane is theirs, else that of the two directions in which codes vary most.
    """
    if codes.shape[1] == 2:
        points, part, axes_of = codes, 1.0, "latent"
    else:
        centred = (codes - codes.mean(0)).double()
        _, deviations, directions = torch.linalg.svd(centred, full_matrices=False)
        points = (centred @ directions[:2].mT).float()
        part, axes_of = float(deviations[:2].square().sum() / deviations.square().sum()), "principal direction"
    named, classes = largest_classes(labels), np.array(labels, dtype=object)
    with figure(width=5.2, height=4.2) as (made, axes):
        drawn, titles = list[PathCollection](), list[str]()
        rest = ~np.isin(classes, named)
        if rest.any():
            x, y = points[torch.from_numpy(rest)].numpy().T
            drawn.append(axes.scatter(x, y, s=7, color=MUTED, alpha=0.4))
            titles.append("others")
        for place, name in enumerate(named):
            x, y = points[torch.from_numpy(classes == name)].numpy().T
            drawn.append(axes.scatter(x, y, s=9, color=colormaps["tab10"](place), alpha=0.8, linewidths=0))
            titles.append(plain(name))
        axes.set_xlabel(f"{axes_of} 1")
        axes.set_ylabel(f"{axes_of} 2")
        axes.set_title("Codes by class")
        # As labels of the points, those that begin with an underscore would be left out.
        axes.legend(drawn, titles, loc="center left", bbox_to_anchor=(1, 0.5), title="class", markerscale=1.8)
        data = svg(made)
    if codes.shape[1] == 2:
        return data, "Posterior means by class, in the plane of the two latents."
    return data, f"Posterior means by class, in the two directions that hold {part:.0%} of their variance."


def class_means(codes: Tensor, labels: Sequence[str]) -> tuple[Tensor, list[str]]:
    """The mean code of each of the largest classes, (at most MOST_CLASSES, D), and their names."""
    named, classes = largest_classes(labels), np.array(labels, dtype=object)
    return torch.stack([codes[torch.from_numpy(classes == name)].mean(0) for name in named]), named
