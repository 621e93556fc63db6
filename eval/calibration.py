"""What is known of the calibration of predicted variances: coverage, residuals, reliability, sparsification."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How many pixels lie inside the central interval of one level."""

    level: float
    """The part of the pixels that a calibrated variance has inside."""
    value: float
    """The part that is inside."""


@dataclass(frozen=True, kw_only=True)
class CoverageOfImages(Coverage):
    """The mean over images."""

    standard_error: float | None = None
    """Over the images; None for a single image, and where an earlier version measured."""


@dataclass(frozen=True, kw_only=True)
class UpperHalf:
    """Calibration of the pixels whose predicted variance is above the median."""

    coverage: tuple[Coverage, ...]
    """By level."""
    mean_square_error: float
    """Squared pixel units."""
    variance: float
    """Mean predicted variance, squared pixel units."""


@dataclass(frozen=True, kw_only=True)
class StandardisedResiduals:
    """Standardised residuals (x - g) / sigma."""

    mean: float
    """0 where calibrated."""
    standard_deviation: float
    """1 where calibrated."""
    edges: tuple[float, ...]
    """Of the histogram's bins, in standard deviations, (E,)."""
    density: tuple[float, ...]
    """In each bin, (E - 1,)."""
    beyond: float
    """Part of the residuals outside of all bins."""


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Pixels grouped by their predicted variance into groups of equal size."""

    variance: tuple[float, ...]
    """Mean predicted variance of each group, increasing, (G,)."""
    square_error: tuple[float, ...]
    """Mean squared error of each group, (G,): equal to `variance` where the prediction is calibrated."""


@dataclass(frozen=True, kw_only=True)
class Sparsification:
    """How the mean squared error of what is kept falls as the most uncertain pixels are left out (Ilg et al. 2018).

    Errors are relative to the mean squared error of all pixels, so that every curve starts at 1.
    """

    left_out: tuple[float, ...]
    """Parts left out, 0 up to 0.95, (P,)."""
    by_variance: tuple[float, ...]
    """Left out by predicted variance, largest first, (P,)."""
    by_error: tuple[float, ...]
    """Left out by the error itself, the best order there is, (P,)."""
    area: float
    """Area between the two curves: 0 is a perfect order."""
    area_of_chance: float
    """The same area for an order by chance, whose curve stays at 1: an uninformative variance has this."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Whether predicted variances say how far the predictions are off, and how much they differ."""

    coverage: tuple[CoverageOfImages, ...]
    """By level, increasing."""
    upper_half: UpperHalf | None
    """The same for the more uncertain half of the pixels; None where all variances are equal."""
    residuals: StandardisedResiduals
    """Errors in units of their predicted deviation."""
    correlation_of_variance_and_square_error: float
    """Pearson's, over pixels."""
    rank_correlation_over_pixels: float
    """Spearman's, of variance and squared error."""
    rank_correlation_over_images: float
    """Spearman's, of their means over each image."""
    reliability: Reliability
    """Error against predicted variance."""
    sparsification: Sparsification
    """How well the variance orders pixels by their error."""
    log_likelihood_gain: float
    """Nats per image by which these variances beat the best single one; below 0 where they are worse."""
    mean_square_error: float
    """Squared pixel units."""
    mean_variance: float
    """Squared pixel units."""


@dataclass(frozen=True, kw_only=True)
class RegionCoverage:
    """How many means over square regions of pixels lie inside their central intervals."""

    side: int
    """Pixels along a side; 0 for the whole image."""
    regions: int
    """Regions of an image."""
    independent: tuple[Coverage, ...]
    """By level, where pixels are independent given z."""
    correlated: tuple[Coverage, ...]
    """By level, with the fitted covariance of the residuals."""
    calibrated: tuple[Coverage, ...] = ()
    """The same times a quantile on held-out images, by level that these can promise; empty where not asked for."""


@dataclass(frozen=True, kw_only=True)
class TenthCoverage:
    """Coverage among a tenth of the pixels, grouped by predicted sigma."""

    sigma: float
    """Mean predicted sigma_k(z), pixel units."""
    coverage: tuple[CoverageOfImages, ...]
    """By level. The standard error counts the images that the intervals were calibrated on, too."""


@dataclass(frozen=True, kw_only=True)
class CalibratedIntervals:
    """Intervals g +- w sigma whose w is a quantile of |x - g| / sigma on held-out images (split conformal)."""

    split: str
    """Split of the images that they were calibrated on."""
    images: int
    """How many."""
    edges: tuple[float, ...]
    """Predicted sigma that divides the pixels into groups with quantiles of their own, increasing, (G - 1,)."""
    half_widths: tuple[tuple[float, ...], ...]
    """w of each level and group, (L, G)."""
    coverage: tuple[CoverageOfImages, ...]
    """On the measured images, by level that so many held-out images can promise: n of them up to n / (n + 1)."""
    tenths: tuple[TenthCoverage, ...]
    """The same in each tenth of predicted sigma, the smallest first; one where all are equal."""
