"""Trees set into a landscape: rows of a forest, pines that frame the view, lone trees."""

from collections.abc import Callable
from random import Random

from app.generators.builtin.colour import Colour, mix, multiply
from app.generators.builtin.land import local_colour
from app.generators.builtin.noise import Line
from app.generators.builtin.picture import Picture, Point, Stencil
from app.generators.builtin.plants import palm, pine, round_tree, tree_line

_Plant = Callable[[Stencil, Random, Point, float], None]

_LEAVES: tuple[Colour, ...] = ((206, 112, 44), (182, 72, 44), (222, 158, 62))


def pine_colour(picture: Picture, distance: float) -> Colour:
    """The colour of conifers, `distance` 0 (at our feet) … 1 (all haze) away."""
    colour = picture.palette.lit(local_colour(picture, "pine"), distance)
    depth = 0.15 if picture.scene.has("autumn") else 0.4
    return mix(colour, picture.palette.shadow, depth * (1 - distance))


def forest_row(picture: Picture, name: str, crest: Line, height: float, distance: float) -> None:
    """A row of trees in the colours of the season; none if trees are not wanted."""
    if not picture.scene.has("trees", default=True):
        return
    colours = [pine_colour(picture, distance)]
    if picture.scene.has("autumn"):
        colours += [mix(colours[0], picture.palette.lit(leaf, distance), 0.75) for leaf in _LEAVES]
    tree_line(picture, name, crest, height, colours)


def framing_pines(picture: Picture, ground: Line) -> None:
    """A few tall pines at the edge under the light, which lead the eye into the distance."""
    if not picture.scene.has("trees", default=True):
        return
    rng, grove, unit = picture.rng("framing"), picture.stencil(), picture.unit
    edge, inward = (0.0, 1) if picture.light_from_left else (float(picture.width), -1)
    for index in range(5):
        x = edge + inward * unit * (0.035 * index + rng.uniform(0.0, 0.03))
        pine(grove, rng, (x, ground(x) + 0.02 * unit), unit * (0.4 - 0.065 * index) * rng.uniform(0.8, 1.1))
    picture.lay(grove.mask(), mix(pine_colour(picture, 0.0), picture.palette.shadow, 0.4))


def lone_trees(picture: Picture, crest: Line) -> None:
    """Three broad-leaved trees in a group on a hill."""
    rng, trees = picture.rng("lone trees"), picture.stencil()
    start = picture.from_light(0.7)
    for index in range(3):
        x = start + (0.11 * index + rng.uniform(-0.03, 0.03)) * picture.unit
        round_tree(trees, rng, (x, crest(x)), picture.unit * (0.2 - 0.05 * index))
    foliage = "autumn" if picture.scene.has("autumn") else "pine"
    tone = multiply(local_colour(picture, foliage), (255, 255, 240))
    picture.lay(trees.mask(), mix(picture.palette.lit(tone, 0.12), picture.palette.shadow, 0.25))


def plant_few(picture: Picture, grow: _Plant, crest: Line, sizes: tuple[float, ...], name: str) -> None:
    """One plant for each of the sizes (in units), spread over the ground."""
    rng, plants = picture.rng(name), picture.stencil()
    for index, size in enumerate(sizes):
        x = picture.width * (0.18 + 0.3 * index + rng.uniform(-0.08, 0.08))
        grow(plants, rng, (x, crest(x) + 0.02 * picture.unit), size * picture.unit)
    picture.lay(plants.mask(), mix(pine_colour(picture, 0.0), picture.palette.shadow, 0.3))


def palm_grove(picture: Picture, middle: float, crest: Line) -> None:
    """Seven palms round the column `middle`."""
    rng, grove = picture.rng("grove"), picture.stencil()
    for _ in range(7):
        x = middle + rng.uniform(-0.17, 0.17) * picture.unit
        palm(grove, rng, (x, crest(x) + 2), picture.unit * rng.uniform(0.14, 0.25))
    picture.lay(grove.mask(), mix(pine_colour(picture, 0.0), picture.palette.shadow, 0.3))
