"""Exercises of 12_vision_transformer: stub open, solution passes, each mistake told apart."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.exercises.three_ways import assert_three_ways, labels

CHAPTER = "12_vision_transformer"


def _patchify(order=(0, 2, 4, 1, 3, 5), by_columns=False, swap=False):
    def patchify(x, P):
        B, C, H, W = x.shape
        x = x.reshape(B, C, H // P, P, W // P, P).permute(*order)
        return x.reshape(B, H * W // P**2, C * P * P)

    return patchify


def _as_square(x, P):
    """Right where height and width are equal."""
    B, C, H, W = x.shape
    x = x.reshape(B, C, W // P, P, H // P, P).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(B, -1, C * P * P)


def _P_is_two(x, P):
    tokens = F.unfold(x, P, stride=P).mT
    return tokens if P == 2 else tokens.flip(-1)


def _cost(token=1, attention=2, width=12, square=False):
    def cost(H, W, P, d):
        n = (H // P) ** 2 if square else H * W // P**2
        n += token
        return width * n * d**2 + attention * n**2 * d

    return cost


def _shuffled(inverse=False, everything=False, in_place=False):
    def positions(table, order):
        order = order.argsort() if inverse else order
        if everything:
            return table[:, torch.cat([order, torch.tensor([len(order)])])]
        moved = torch.cat([table[:, :1], table[:, 1:][:, order]], 1)
        if in_place:
            table.copy_(moved)
        return moved

    return positions


def _of_one_model(table, order):
    """Right for the small table that is looked at first."""
    return _shuffled()(table, order) if table.shape[1] == 5 else table


def _resize(swap=False, corners=False, mode="bilinear", token=True):
    def resize(table, G):
        first, places = table[:, :1], table[:, 1:]
        old = math.isqrt(places.shape[1])
        grid = places.mT.reshape(1, -1, old, old)
        options = {} if mode in ("nearest", "area") else {"align_corners": corners}
        grid = F.interpolate(grid, (G, G), mode=mode, **options)
        if swap and old != G:
            grid = grid.mT
        new = torch.cat([first, grid.flatten(2).mT], 1)
        return new if token else new.roll(-1, 1)

    return resize


def _as_a_list(table, G):
    """Along the list of places, as if they stood in a line."""
    line = F.interpolate(table[:, 1:].mT, G * G, mode="linear").mT
    return torch.cat([table[:, :1], line], 1)


def _larger_only(table, G):
    old = math.isqrt(table.shape[1] - 1)
    return _resize()(table, max(G, old))[:, : 1 + G * G]


def _head(sign=1, scale=2, alpha_of=lambda a: a, swap=False, square=True, limit=None):
    def queries_and_keys(side, offset, alpha):
        axis = torch.arange(side, dtype=torch.float64)
        place = torch.cartesian_prod(axis, axis)
        shift = torch.tensor(offset[::-1] if swap else offset, dtype=torch.float64)
        if limit:
            shift = shift.clamp(-limit, limit)
        ones = torch.ones(side**2, 1, dtype=torch.float64)
        query = torch.cat([scale * (place + sign * shift), -ones if square else 0 * ones], 1)
        key = torch.cat([place, place.square().sum(1, keepdim=True)], 1)
        return alpha_of(alpha) * query, key

    return queries_and_keys


WRONG = {
    "ex-vision_transformer-patchify": {
        "reshape": (
            lambda x, P: x.reshape(len(x), -1, x.shape[1] * P * P),
            "a reshape moves nothing",
        ),
        "channels last": (_patchify((0, 2, 4, 3, 5, 1)), "patch 0 of three channels"),
        "along the columns": (
            lambda x, P: F.unfold(x.mT, P, stride=P).mT,
            "a patch is read along its rows",
        ),
        "patches along the columns": (_patchify((0, 4, 2, 1, 3, 5)), "patch 1: got"),
        "axes as unfold leaves them": (lambda x, P: F.unfold(x, P, stride=P), "(2, 12, 6)"),
        "stride one": (lambda x, P: F.unfold(x, P).mT, "(2, 15, 12)"),
        "height for width": (_as_square, "pixels of patch 0, sorted: got 4"),
        "for patches of two": (_P_is_two, "patchify(x, 3)"),
    },
    "ex-vision_transformer-kernel": {
        "not transposed": (lambda E, C, P: E.reshape(-1, C, P, P), "the numbers of output 1"),
        "channels last": (
            lambda E, C, P: E.T.reshape(-1, P, P, C).permute(0, 3, 1, 2),
            "pixels stand in the order of a patch",
        ),
        "rows for columns": (
            lambda E, C, P: E.T.reshape(-1, C, P, P).mT,
            "kernel 1, flattened: got 11 at index (1,), want 6",
        ),
        "as a linear layer stores it": (lambda E, C, P: E.T, "got shape (5, 12)"),
        "one more": (lambda E, C, P: E.T.reshape(-1, C, P, P) + 1, "sorted: got 2"),
        "three channels": (
            lambda E, C, P: E.T.reshape(-1, 3, 2, 2) if C == 3 else E.reshape(-1, C, P, P),
            "for one channel and large patches too",
        ),
    },
    "ex-vision_transformer-cost": {
        "no class token": (_cost(token=0), "for 16 tokens"),
        "scores only": (_cost(width=0), "got 18496, want 227392"),
        "no feed-forward layer": (_cost(width=4), "got 88128"),
        "multiplications twice": (_cost(attention=4, width=24), "got 454784"),
        "once over all pairs": (_cost(attention=1), "got 218144"),
        "square images": (_cost(square=True), "cost(12, 30, 3, 7)"),
    },
    "ex-vision_transformer-shuffled": {
        "the other way": (_shuffled(inverse=True), "dealt out the other way"),
        "class token too": (_shuffled(everything=True), "row 0: got"),
        "unchanged": (lambda table, order: table, "rows 1 to 4 for order 2 0 3 1"),
        "without the class token": (lambda table, order: table[:, 1:][:, order], "got shape (1, 4"),
        "in place": (_shuffled(in_place=True), "leaves the given table as it was"),
        "for four patches": (_of_one_model, "logits of shuffled images"),
    },
    "ex-vision_transformer-interpolate": {
        "class token forgotten": (
            lambda table, G: _resize()(table, G)[:, 1:],
            "got shape (1, 49, 3)",
        ),
        "class token last": (_resize(token=False), "row 0: got"),
        "corners aligned": (_resize(corners=True), "interpolates between centres"),
        "nearest": (_resize(mode="nearest"), "0 1 2 3 on eight places: got 0"),
        "axes swapped": (_resize(swap=True), "rows stay rows"),
        "in a line": (_as_a_list, "a table that changes from row to row only"),
        "larger only": (_larger_only, "resize to 2 × 2"),
    },
    "ex-vision_transformer-head": {
        "to the left": (_head(sign=-1), "looks at the left"),
        "itself": (_head(sign=0), "looks at itself"),
        "x before y": (_head(swap=True), "looks at below"),
        "without the square": (_head(square=False), "row 1, column 1 looks at: got 15"),
        "without the two": (_head(scale=1), "got a blur"),
        "α forgotten": (_head(alpha_of=lambda a: 30.0), "weights at α = 0.3"),
        "α squared": (_head(alpha_of=lambda a: a * a), "got 0.130381"),
        "one step at most": (_head(limit=1), "weights for (2, -2)"),
        "four features": (
            lambda side, offset, alpha: (torch.zeros(side**2, 4), torch.zeros(side**2, 4)),
            "got shape (16, 4)",
        ),
    },
}


@pytest.mark.parametrize("label", labels(CHAPTER))
def test_three_ways(label):
    assert_three_ways(CHAPTER, label, WRONG[label])


def test_every_exercise_has_its_wrong_answers():
    assert set(labels(CHAPTER)) == set(WRONG)
