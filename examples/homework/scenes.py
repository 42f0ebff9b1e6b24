"""Generated colour scenes that resemble landscapes, for use without a data file; no photographs.

Six classes, 48x48 pixels in red, green and blue. Each has three cues: the layout (a skyline, and
for a street a road to a vanishing point), the colours, and the texture of the ground (noise with
the power spectrum of the class, of random sign, so that a linear model cannot see it). Each is
sometimes that of another class, so none decides alone. Light, contrast, tint and a layer of clutter
with the spectrum of natural images, ``1/f``, vary from scene to scene.

The same arguments give the same bytes on every processor; see ``minidl.data.exact``.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from minidl import Dataset
from minidl.checks import Array, quietly
from minidl.data import exact
from minidl.data.cache import ImageGenerator

CLASSES = ("buildings", "forest", "glacier", "mountain", "sea", "street")
N_CLASSES = len(CLASSES)
SIDE = 48
SIZES = {"train": 12_630, "valid": 1_404, "test": 3_000}
_BLOCK = 480  # scenes drawn at once: 80 of each class, about 40 MB of temporary arrays

# The difficulty. How often a cue is that of the scene's class (else of any class):
_LAYOUT, _COLOUR, _TEXTURE = 0.90, 0.89, 0.90
_CLUTTER = 0.11  # standard deviation of the 1/f clutter
_NOISE = 0.04  # standard deviation of the noise of each pixel

# Of each class: the mean height of the skyline from the top, the height of its details, the mean
# colour of the ground, and how strong its texture is.
_HORIZON = np.array([0.35, 0.18, 0.45, 0.45, 0.45, 0.40], np.float32)
_RELIEF = np.array([0.16, 0.05, 0.12, 0.22, 0.0, 0.35], np.float32)
_RED = [0.50, 0.28, 0.62, 0.44, 0.34, 0.46]
_GREEN = [0.46, 0.38, 0.68, 0.42, 0.46, 0.43]
_BLUE = [0.42, 0.22, 0.74, 0.38, 0.54, 0.41]
_GROUND = np.array(list(zip(_RED, _GREEN, _BLUE, strict=True)), np.float32)
_STRENGTH = np.array([0.16, 0.20, 0.10, 0.14, 0.10, 0.14], np.float32)
_SKIES = np.array(
    [[0.55, 0.70, 0.88], [0.78, 0.80, 0.82], [0.85, 0.68, 0.55], [0.45, 0.50, 0.60]], np.float32
)

_Y, _X = np.meshgrid(*[(np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE] * 2, indexing="ij")


def load_scenes(seed: int = 0, *, progress: bool = False, **sizes: int) -> Dataset:
    """Load the generated scenes, by default as many as the course's: see ``load_letters``."""
    return SCENES.load(SIZES | sizes, seed, progress)


@quietly
def _draw_block(rng: np.random.Generator, labels: Array) -> Array:
    layout, colour, texture = (
        np.where(rng.random(_BLOCK) < share, labels, rng.integers(0, N_CLASSES, _BLOCK))
        for share in (_LAYOUT, _COLOUR, _TEXTURE)
    )
    ground, road = _layout(layout, rng)
    depth = np.clip((_Y - 0.3) * 1.5, 0, 1)  # what is near is darker and has more contrast
    textures, natural = _spectra()
    grain = _coloured_noise(textures[texture], rng) * _STRENGTH[texture][:, None, None]
    brightness = grain * (0.5 + 0.5 * depth) - 0.1 * depth
    earth = _GROUND[colour] + exact.normal(rng, _BLOCK, 3) * 0.06
    scene = _sky(natural, rng)
    near = earth[:, None, None, :] + brightness[..., None]
    scene += ground[..., None] * (near - scene)
    scene += road[..., None] * (0.38 + 0.5 * brightness[..., None] - scene)
    scene += _CLUTTER * _coloured_noise(natural, rng)[..., None]
    contrast = exact.exp(0.25 * exact.normal(rng, _BLOCK, 1, 1, 1))
    light = 0.47 + 0.11 * exact.normal(rng, _BLOCK, 1, 1, 1)
    tint = 0.04 * exact.normal(rng, _BLOCK, 1, 1, 3)
    scene = light + contrast * (scene - 0.5) + tint + _NOISE * exact.normal(rng, *scene.shape)
    pixels = np.clip(256 * scene, 0, 255).astype(np.uint8)
    return pixels.reshape(_BLOCK, -1)


SCENES = ImageGenerator(
    "scenes",
    version=2,
    note="not photographs",
    features=SIDE * SIDE * 3,
    labels=np.repeat(np.arange(N_CLASSES, dtype=np.uint8), _BLOCK // N_CLASSES),
    draw=_draw_block,
)
"""Labels are positions in ``CLASSES``. ``pixels[i].reshape(48, 48, 3)`` stands upright."""


def _layout(layout: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return how far each pixel belongs to the ground and to a road, 0 to 1: (n, 48, 48) each."""
    n = len(layout)
    columns = np.arange(SIDE)
    phases = rng.random((6, n, 1), dtype=np.float32)
    hills = sum(_arch(f * _X[0] + phase) / f for f, phase in enumerate(phases, start=1)) - 1.2
    width = rng.integers(5, 12, (n, 1))
    house = (columns + rng.integers(0, 12, (n, 1))) // width
    heights = rng.random((n, 16), dtype=np.float32) - 0.5
    blocks_of_houses = 2 * np.take_along_axis(heights, house, axis=1)
    centre = 0.5 + 0.15 * exact.normal(rng, n, 1)
    slopes = 2 * np.abs(_X[0] - centre) - 0.5 + 0.3 * blocks_of_houses
    kind = np.stack([blocks_of_houses, hills, hills, hills, hills, slopes])
    horizon = _HORIZON[layout][:, None] + 0.13 * exact.normal(rng, n, 1)
    skyline = horizon - kind[layout, np.arange(n)] * _RELIEF[layout][:, None]  # from the top
    ground = np.clip((_Y - skyline[:, None, :]) * SIDE, 0, 1)
    vanishing = np.maximum(horizon, 0.3)[:, :, None]
    spread = 0.5 + 0.6 * rng.random((n, 1, 1), dtype=np.float32)
    edge = spread * (_Y - vanishing) - np.abs(_X - centre[:, :, None])
    road = np.clip(edge * SIDE, 0, 1) * (layout == CLASSES.index("street"))[:, None, None]
    return ground, road.astype(np.float32)


def _arch(x: Array) -> Array:
    """Return ``|sin(pi x)|`` up to 0.002, by Bhaskara's formula."""
    x = x - np.floor(x)
    parabola = 4 * x * (1 - x)
    return np.asarray(4 * parabola / (5 - parabola))


def _sky(natural: Array, rng: np.random.Generator) -> Array:
    """Return skies that are lighter towards the horizon, with clouds: (n, 48, 48, 3)."""
    skies = _SKIES[rng.integers(0, len(_SKIES), _BLOCK)]
    colour = skies + 0.08 * exact.normal(rng, _BLOCK, 3)
    clouds = _coloured_noise(natural, rng)
    clouds *= 0.08 * rng.random((_BLOCK, 1, 1), dtype=np.float32)
    return colour[:, None, None, :] + (0.2 * _Y + clouds)[..., None]


def _coloured_noise(spectra: Array, rng: np.random.Generator) -> Array:
    """Return ``W^T (S * white) W``, noise of variance 1 with the spectra S: (480, 48, 48)."""
    waves = _waves()
    coefficients = spectra * exact.normal(rng, _BLOCK, SIDE, SIDE)
    return exact.matmul(exact.matmul(waves.T, coefficients), waves).astype(np.float32)


@cache
def _waves() -> Array:
    """Return an orthonormal basis of waves, of frequencies 0, 1, 1, ..., 23, 23, 24: (48, 48)."""
    cos, sin = [1.0], [0.0]  # of multiples of 7.5 degrees
    c = math.sqrt(3) / 2
    for _ in range(2):  # 30 degrees, halved twice
        c, s = math.sqrt((1 + c) / 2), math.sqrt((1 - c) / 2)
    for _ in range(SIDE - 1):
        cos, sin = [*cos, cos[-1] * c - sin[-1] * s], [*sin, sin[-1] * c + cos[-1] * s]
    angle = np.outer(np.arange(SIDE // 2 + 1), np.arange(SIDE)) % SIDE
    waves = np.stack([np.array(cos)[angle], np.array(sin)[angle]], axis=1).reshape(-1, SIDE)
    waves = np.delete(waves, [1, -1], axis=0)  # the sines of frequency 0 and 24 are 0
    waves *= math.sqrt(2 / SIDE)
    waves[[0, -1]] *= math.sqrt(0.5)
    return waves


@cache
def _spectra() -> tuple[Array, Array]:
    """Return the spectra of the classes' textures and of natural images, (6, 48, 48), (48, 48)."""
    frequency = (np.arange(SIDE) + 1) // 2
    down, across = np.meshgrid(*[frequency.astype(np.float64)] * 2, indexing="ij")
    radius = np.sqrt(down * down + across * across)
    natural = 1 / np.maximum(radius, 1)

    def band(of: Array, at: float, width: float) -> Array:
        away = (of - at) / width
        return exact.exp(-away * away)

    grid = band(down, 8, 1.5) * band(across, 0, 2) + band(across, 8, 1.5) * band(down, 0, 2)
    textures = [
        grid,  # buildings: windows, in rows and columns
        band(across, 12, 6) * band(down, 0, 6),  # forest: trunks
        natural * band(radius, 0, 8),  # glacier: smooth
        natural * band(radius, 0, 16) * (radius > 1),  # mountain: grains of all sizes
        band(down, 9, 6) * band(across, 0, 2.5),  # sea: waves
        0.5 * grid + band(radius, 5, 3) / 4,  # street
    ]

    def unit(spectrum: Array) -> Array:
        spectrum = spectrum * (radius > 0)
        power = math.fsum((spectrum * spectrum).ravel()) / spectrum.size
        return np.asarray(spectrum / math.sqrt(power), np.float32)

    return np.stack([unit(texture) for texture in textures]), unit(natural)
