"""Central and shortest intervals of mixtures of Beta distributions, in one compiled loop.

Each mixture gets a table of its own. Its nodes are log odds, because the log odds of a Beta have a smooth
and finite density for all parameters. The steps fit the narrowest component at each place. The density and
its first two derivatives at the nodes give the masses of the steps (an integral of seventh order) and a
polynomial of fifth degree inside them, which Newton's method inverts.
"""

import functools
import math
import pickle

import numpy as np
from numba import njit

# Fractions closer than this to 0 or 1 are outside of the table; both kinds of intervals may be this wrong.
EDGE = 3e-5
FAR = math.log((1 - EDGE) / EDGE)
# A step in standard deviations of the narrowest component, the longest step in log odds, and a number of
# nodes for each component that is never reached.
STEP, LONGEST, NODES = 0.8, 2.0, 64
# Components are computed side by side, in groups of this many.
TOGETHER = 16
# Beyond this sum a Beta is a point for our tolerance; below this parameter it is one at 0 or 1.
LARGEST, SMALLEST = 1e9, 1e-6
# A weight below this changes nothing; a mass below this is not searched for ends of the shortest interval.
NO_WEIGHT, NO_MASS = 1e-12, 1e-7
# Masses of a table are this wrong. The shortest interval may have so much less, so that an error cannot
# make it reach over a gap to the next peak.
MASS_ERROR = 2e-6
# The density of what is outside of the table.
ENDLESS = 1e9
# Rows of a table: log odds, mass below, density of the log odds and its derivatives, fraction.
ODDS, BELOW, DENSITY, SLOPE, BEND, FRACTION = range(6)
# Rows of the components of a mixture: parameters, weight, first and last log odds that matter, step, and
# the logarithm of its factor.
A, B, WEIGHT, FIRST, LAST, WIDTH, FACTOR = range(7)


# Sums may be reordered, so that several components are computed at once.
OPTIONS = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "nsz", "arcp"}}
compiled = njit(**OPTIONS)
# What numba raises if it cannot keep machine code, and what it and pickle raise at a damaged file of it.
NOT_KEPT = (OSError, RuntimeError, ValueError, TypeError, AttributeError, LookupError, EOFError, ImportError)
NOT_KEPT += (pickle.UnpicklingError,)


def intervals(a, b, weights, level):
    """Central and shortest intervals of mixtures of Beta distributions.

    The first call compiles the loop, which takes some seconds of one core. The machine code is kept beside
    this module or in the user's cache, for later processes.

    Args:
        a, b: (mixtures, components) float64, the parameters of the components, > 0.
        weights: (mixtures, components) float64, >= 0, with the sum 1.
        level: mass of the intervals, between 0 and 1.

    Returns:
        (7, mixtures): lower and upper ends of the central interval, then of the shortest interval; the mass
        below the shortest interval; the smaller one of the densities at the ends of the central interval;
        the mass that the table lost.
    """
    arguments = [np.ascontiguousarray(each, dtype=np.float64) for each in (a, b, weights)]
    try:
        return _machine_code(True)(*arguments, float(level))
    except NOT_KEPT:
        # No folder can be written, the disk is full, or what was kept is damaged: compiled for this process.
        return _machine_code(False)(*arguments, float(level))


@functools.cache
def _machine_code(keep):
    return njit(_intervals, cache=keep, **OPTIONS)


def _intervals(a, b, weights, level):
    """The loop over the mixtures; see `intervals`."""
    mixtures, components = a.shape
    results = np.empty((7, mixtures))
    groups = (components + TOGETHER - 1) // TOGETHER
    parts = np.empty((7, TOGETHER * groups))
    nodes = np.empty((6, NODES * (components + 1)))
    for mixture in range(mixtures):
        parts[A], parts[B], parts[WEIGHT] = 1.0, 1.0, 0.0
        for part in range(components):
            total = a[mixture, part] + b[mixture, part]
            scale = min(1.0, LARGEST / total)
            parts[A, part] = max(a[mixture, part] * scale, SMALLEST)
            parts[B, part] = max(b[mixture, part] * scale, SMALLEST)
            parts[WEIGHT, part] = weights[mixture, part]
        count, results[6, mixture] = _tabulate(parts, nodes)
        low, of_low = _quantile((1 - level) / 2, nodes, count)
        high, of_high = _quantile((1 + level) / 2, nodes, count)
        results[0, mixture], results[1, mixture], results[5, mixture] = low, high, min(of_low, of_high)
        below, low, high = _shortest(level - MASS_ERROR, nodes, count)
        results[2, mixture], results[3, mixture], results[4, mixture] = low, high, below
    return results


@compiled
def _exp(x):
    """exp(x) for -700 < x < 700, within 1e-8 of it; unlike the library's it is computed side by side."""
    power = np.floor(x * 1.4426950408889634 + 0.5)
    r = x - power * 0.6931471805599453
    series = 1 + r * (
        1 + r * (1 / 2 + r * (1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r * (1 / 5040))))))
    )
    return series * np.int64((np.int64(power) + 1023) << 52).view(np.float64)


@compiled
def _log(x):
    """log(x) of positive numbers, to the last digits; unlike the library's it is computed side by side."""
    bits = np.float64(x).view(np.int64)
    # Divided by a power of two, x lies between the roots of 1/2 and of 2.
    power = (bits - 0x3FE6A09E667F3BCD) >> 52
    m = np.int64(bits - (power << 52)).view(np.float64)
    s = (m - 1) / (m + 1)
    z = s * s
    tail = 1 / 11 + z * (1 / 13 + z * (1 / 15 + z * (1 / 17 + z * (1 / 19 + z / 21))))
    series = 1 / 3 + z * (1 / 5 + z * (1 / 7 + z * (1 / 9 + z * tail)))
    return power * 0.6931471805599453 + 2 * s * (1 + z * series)


@compiled
def _log_gamma_7(z):
    """Log gamma function of z + 7 by Stirling's series, within 1e-10."""
    z = z + 7
    i = 1 / z
    correction = i * (1 / 12 - i * i * (1 / 360 - i * i * (1 / 1260 - i * i / 1680)))
    return (z - 0.5) * _log(z) - z + 0.9189385332046727 + correction


@compiled
def _rising_7(z):
    """Γ(z + 7) / Γ(z)."""
    return z * (z + 1) * (z + 2) * (z + 3) * (z + 4) * (z + 5) * (z + 6)


@compiled
def _prepare(parts):
    """Fill in what follows from the parameters of the components: range, step and factor."""
    a_of, b_of, weight_of = parts[A], parts[B], parts[WEIGHT]
    first, last, width, factor = parts[FIRST], parts[LAST], parts[WIDTH], parts[FACTOR]
    for part in range(len(a_of)):
        a, b = a_of[part], b_of[part]
        total = a + b
        spread = math.sqrt((total + 2) / ((a + 1) * (b + 1)))
        width[part] = STEP * spread
        # The density is below exp(-17) of its greatest there: like a normal one if a and b are large,
        # exponential if they are small.
        first[part] = _log(a / (b + 1)) - 6 * spread - 9 / a
        last[part] = _log((a + 1) / b) + 6 * spread + 9 / b
        log_beta = _log_gamma_7(a) + _log_gamma_7(b) - _log_gamma_7(total)
        log_beta += _log(_rising_7(total) / (_rising_7(a) * _rising_7(b)))
        factor[part] = _log(max(weight_of[part], 1e-300)) - log_beta
    for part in range(len(a_of)):
        if weight_of[part] < NO_WEIGHT:
            first[part], last[part] = FAR, -FAR


@compiled
def _place(parts, nodes):
    """Fill in the log odds of the nodes; returns their number."""
    first, last, width, odds = parts[FIRST], parts[LAST], parts[WIDTH], nodes[ODDS]
    begin, end = max(first.min(), -FAR), min(last.max(), FAR)
    if end <= begin:
        begin, end = -FAR, FAR
    count, here = 1, begin
    odds[0] = begin
    while here < end:
        step = LONGEST
        for part in range(len(first)):
            allowed = max(first[part] - here, width[part])
            step = min(step, allowed if here < last[part] else LONGEST)
        here = min(here + step, end)
        odds[count] = here
        count += 1
    return count


@compiled
def _evaluate(parts, nodes, count):
    """Fill in the fractions of the nodes, and the densities of the mixture with their derivatives."""
    a, b, factor = parts[A], parts[B], parts[FACTOR]
    first, last, width = parts[FIRST], parts[LAST], parts[WIDTH]
    for node in range(count):
        odds = nodes[ODDS, node]
        small = math.exp(-abs(odds))
        rest = math.log1p(small)
        log_below, log_above = min(odds, 0.0) - rest, min(-odds, 0.0) - rest
        x = (1.0 if odds > 0 else small) / (1 + small)
        variance = small / (1 + small) ** 2
        density, slope, bend = 0.0, 0.0, 0.0
        for part in range(len(a)):
            total = a[part] + b[part]
            p = _exp(max(a[part] * log_below + b[part] * log_above + factor[part], -700.0))
            # Steps beyond its range may be so long that the little that is left would count too much.
            p = p if first[part] + 0.1 * width[part] < odds < last[part] else 0.0
            u = a[part] - total * x
            density += p
            slope += p * u
            bend += p * (u * u - total * variance)
        nodes[DENSITY, node], nodes[SLOPE, node], nodes[BEND, node] = density, slope, bend
        nodes[FRACTION, node] = x


@compiled
def _mass_beyond(a, b, log_factor, edge_odds):
    """Mass of a component, times its weight, between 0 and EDGE; `edge_odds` is the first node."""
    if edge_odds > -FAR:
        return 0.0
    term = math.exp(a * math.log(EDGE) + b * math.log1p(-EDGE) + log_factor) / a
    summed, number = term, 0
    while number < 100_000:
        ratio = (a + b + number) * EDGE / (a + 1 + number)
        term *= ratio
        summed += term
        number += 1
        if ratio < 0.9 and term <= 1e-10 * summed:
            break
    return summed


@compiled
def _tabulate(parts, nodes):
    """Fill in the table of a mixture.

    Returns:
        (number of nodes, mass that the table lost before it was scaled to the right mass).
    """
    _prepare(parts)
    count = _place(parts, nodes)
    _evaluate(parts, nodes, count)
    before, after = 0.0, 0.0
    for part in range(parts.shape[1]):
        a, b, weight, first, last = parts[:5, part]
        if weight < NO_WEIGHT:
            continue
        if first < -FAR:
            before += weight if last < -FAR else _mass_beyond(a, b, parts[FACTOR, part], nodes[ODDS, 0])
        if last > FAR:
            after += (
                weight if first > FAR else _mass_beyond(b, a, parts[FACTOR, part], -nodes[ODDS, count - 1])
            )
    below, density, slope, bend = nodes[BELOW], nodes[DENSITY], nodes[SLOPE], nodes[BEND]
    below[0] = 0.0
    for node in range(count - 1):
        h = nodes[ODDS, node + 1] - nodes[ODDS, node]
        mass = (density[node] + density[node + 1]) / 2 + h * (slope[node] - slope[node + 1]) / 10
        mass = h * (mass + h * h * (bend[node] + bend[node + 1]) / 120)
        below[node + 1] = below[node] + max(mass, 0.0)
    total, inside = below[count - 1], max(1 - before - after, 0.0)
    scale = inside / total if total > 0 else 0.0
    for node in range(count):
        below[node] = before + scale * below[node]
        density[node] *= scale
        slope[node] *= scale
        bend[node] *= scale
    return count, abs(inside - total)


@compiled
def _inside(mass, step, nodes):
    """The log odds in a step of the table below which a mass lies, and their density."""
    h = nodes[ODDS, step + 1] - nodes[ODDS, step]
    c0, c1, c2 = h * nodes[DENSITY, step], h * h * nodes[SLOPE, step], h * h * h * nodes[BEND, step] / 2
    d0 = h * nodes[DENSITY, step + 1] - c0 - c1 - c2
    d1 = h * h * nodes[SLOPE, step + 1] - c1 - 2 * c2
    d2 = h * h * h * nodes[BEND, step + 1] / 2 - c2
    c3, c4, c5 = 10 * d0 - 4 * d1 + d2, -15 * d0 + 7 * d1 - 2 * d2, 6 * d0 - 3 * d1 + d2
    wanted, of_step = mass - nodes[BELOW, step], nodes[BELOW, step + 1] - nodes[BELOW, step]
    low, high, density = 0.0, 1.0, 0.0
    s = min(max(wanted / of_step, 0.0), 1.0) if of_step > 0 else 0.5
    for _ in range(30):
        density = c0 + s * (c1 + s * (c2 + s * (c3 + s * (c4 + s * c5))))
        excess = s * (c0 + s * (c1 / 2 + s * (c2 / 3 + s * (c3 / 4 + s * (c4 / 5 + s * c5 / 6))))) - wanted
        if excess < 0:
            low = s
        else:
            high = s
        new = s - excess / density if density > 0 else -1.0
        if new < low or new > high:
            new = (low + high) / 2
        moved = abs(new - s)
        s = new
        if moved * h < 1e-5:
            break
    return nodes[ODDS, step] + s * h, max(density, 0.0) / h


@compiled
def _found(mass, step, nodes, count):
    """The fraction below which a mass lies, and the density there, if the step of the table is known.

    Step -1 is between 0 and the table, step count - 1 is between the table and 1.
    """
    if step < 0:
        of_edge = nodes[BELOW, 0]
        return nodes[FRACTION, 0] * (mass / of_edge if of_edge > 0 else 1.0), ENDLESS
    if step >= count - 1:
        of_edge = 1 - nodes[BELOW, count - 1]
        share = (1 - mass) / of_edge if of_edge > 0 else 1.0
        return 1 - (1 - nodes[FRACTION, count - 1]) * share, ENDLESS
    odds, density = _inside(mass, step, nodes)
    x = 1 / (1 + math.exp(-odds))
    return x, density / (x * (1 - x))


@compiled
def _quantile(mass, nodes, count):
    """The fraction below which a mass lies, and the density there."""
    return _found(mass, np.searchsorted(nodes[BELOW, :count], mass, side="right") - 1, nodes, count)


@compiled
def _shortest(level, nodes, count):
    """The shortest interval of a mixture: the mass below it, its lower end, its upper end.

    The mass below the interval grows from 0 to 1 - level. Each time that an end passes a node, the densities
    at both ends are compared. Where the lower end's becomes the greater one, an interval is shortest.
    """
    most, below, low_step = 1 - level, 0.0, -1
    high_step = np.searchsorted(nodes[BELOW, :count], level, side="right") - 1
    high, of_high = _found(level, high_step, nodes, count)
    best = (0.0, 0.0, high)
    before = (ENDLESS if nodes[BELOW, 0] > NO_MASS else 0.0) - of_high
    while low_step < high_step - 1 and nodes[BELOW, low_step + 1] < NO_MASS:
        low_step += 1
    while below < most and low_step < count - 1 and nodes[BELOW, high_step] < 1 - NO_MASS:
        next_low = nodes[BELOW, low_step + 1]
        next_high = nodes[BELOW, high_step + 1] - level if high_step < count - 1 else 1.0
        here = min(next_low, next_high, most)
        low, of_low = _at(here, low_step, here == next_low, nodes, count)
        high, of_high = _at(here + level, high_step, here == next_high, nodes, count)
        if high - low < best[2] - best[1]:
            best = (here, low, high)
        if before < 0 < of_low - of_high:
            ends = (below, here, before, of_low - of_high)
            found = _refined(ends, level, (low_step, high_step), nodes, count)
            if found[2] - found[1] < best[2] - best[1]:
                best = found
        before, below = of_low - of_high, here
        low_step += here == next_low
        high_step += here == next_high
    low, _ = _quantile(most, nodes, count)
    return best if best[2] - best[1] < 1 - low else (most, low, 1.0)


@compiled
def _at(mass, step, is_node, nodes, count):
    """Like `_found`; at the node after the step nothing has to be searched for."""
    if not is_node:
        return _found(mass, step, nodes, count)
    x = nodes[FRACTION, step + 1]
    return x, nodes[DENSITY, step + 1] / (x * (1 - x))


@compiled
def _refined(ends, level, steps, nodes, count):
    """The shortest interval whose ends stay inside of two steps, like `_shortest`.

    Args:
        ends: smallest and greatest mass below the interval, and the difference of the densities there.
        level: mass of the interval.
        steps: of the table, in which the lower and the upper ends are.
        nodes: the table.
        count: its number of nodes.
    """
    first, last, of_first, of_last = ends
    best = (first, 0.0, 2.0)
    for _ in range(8):
        share = min(max(-of_first / (of_last - of_first), 0.1), 0.9)
        here = first + (last - first) * share
        low, of_low = _found(here, steps[0], nodes, count)
        high, of_high = _found(here + level, steps[1], nodes, count)
        if high - low < best[2] - best[1]:
            best = (here, low, high)
        if of_low < of_high:
            first, of_first = here, of_low - of_high
        else:
            last, of_last = here, of_low - of_high
        if abs(of_low - of_high) < 0.02 * (of_low + of_high):
            break
    return best
