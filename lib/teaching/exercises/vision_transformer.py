"""Checkers for the exercises of chapter 12_vision_transformer."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from lib.models.vit import ViT, ViTConfig
from lib.teaching.exercises import Wrong, checker, expect, expect_close, expect_shape


@checker("ex-vision_transformer-patchify")
def patchify(answer):
    yield "has shape (B, N, C·P·P)"
    x = torch.arange(2.0 * 3 * 4 * 6).view(2, 3, 4, 6)
    got = answer(x.clone(), 2)
    expect_shape(got, (2, 6, 12), "patchify of (2, 3, 4, 6) with P = 2")

    yield "a patch is a square, not a piece of a row"
    image = torch.arange(24.0).view(1, 1, 4, 6)
    first = answer(image, 2)[0, 0]
    if first.tolist() == [0, 1, 2, 3]:
        raise Wrong("patch 0 holds pixels 0 1 2 3, expected 0 1 6 7: a reshape moves nothing")
    expect_close(first.sort().values, torch.tensor([0.0, 1, 6, 7]), "pixels of patch 0, sorted")

    yield "a patch is read along its rows"
    expect_close(first, torch.tensor([0.0, 1, 6, 7]), "patch 0")

    yield "patches are counted along the rows"
    expect_close(answer(image, 2)[0, 1], torch.tensor([2.0, 3, 8, 9]), "patch 1")

    yield "channel by channel"
    want = F.unfold(x, 2, stride=2).mT
    expect_close(got[0, 0], want[0, 0], "patch 0 of three channels")

    yield "agrees with unfold"
    expect_close(got, want, "patchify(x, 2)")
    big = torch.randn(2, 2, 9, 6)
    expect_close(answer(big, 3), F.unfold(big, 3, stride=3).mT, "patchify(x, 3)", atol=1e-6)


@checker("ex-vision_transformer-kernel")
def kernel(answer):
    C, P, d = 3, 2, 5
    E = torch.arange(60.0, dtype=torch.float64).view(C * P * P, d)

    yield "has shape (d, C, P, P)"
    got = answer(E.clone(), C, P)
    expect_shape(got, (d, C, P, P), "kernel(E, 3, 2)")

    yield "output k is column k of E"
    got = got.double()
    expect_close(got[1].flatten().sort().values, E[:, 1], "the numbers of output 1, sorted")

    yield "pixels stand in the order of a patch"
    expect_close(got[1].flatten(), E[:, 1], "kernel 1, flattened")

    yield "the convolution is the linear map"
    x = torch.randn(2, C, 4, 6, dtype=torch.float64)
    want = F.unfold(x, P, stride=P).mT @ E
    expect_close(F.conv2d(x, got, stride=P).flatten(2).mT / 60, want / 60, "its tokens", atol=1e-9)

    yield "for one channel and large patches too"
    E = torch.randn(16, 7, dtype=torch.float64)
    expect_close(answer(E, 1, 4).flatten(1).T, E, "kernel(E, 1, 4), made a matrix again", atol=1e-9)


@checker("ex-vision_transformer-cost")
def cost(answer):
    def want(n: int, d: int) -> int:
        return 12 * n * d * d + 2 * n * n * d

    yield "is a number"
    got = float(answer(8, 8, 2, 32))

    yield "counts the class token"
    if got == want(16, 32):
        raise Wrong(f"got {got:.0f} for 16 tokens, expected {want(17, 32)} for 17")

    yield "counts projections, scores and feed-forward layer"
    expect_close(got, float(want(17, 32)), "cost(8, 8, 2, 32)", atol=0.5)

    yield "grows with the square of the tokens in the end"
    few, many = float(answer(32, 32, 2, 1)), float(answer(32, 32, 1, 1))
    expect_close(many / few, want(1025, 1) / want(257, 1), "cost at P = 1 over P = 2", atol=1e-6)

    yield "takes images that are not square"
    expect_close(float(answer(12, 30, 3, 7)), float(want(41, 7)), "cost(12, 30, 3, 7)", atol=0.5)


@checker("ex-vision_transformer-shuffled")
def positions(answer):
    table = torch.arange(10.0).view(1, 5, 2)
    order = torch.tensor([2, 0, 3, 1])

    yield "keeps the shape"
    got = answer(table.clone(), order)
    expect_shape(got, (1, 5, 2), "the table")

    yield "leaves the class token's row"
    expect_close(got[0, 0], table[0, 0], "row 0")

    yield "each patch takes its own place along"
    back = table[:, 1:][:, order.argsort()]
    if torch.equal(got[:, 1:].double(), back.double()):
        raise Wrong("the rows are dealt out the other way: patch t is patch order[t] of the image")
    expect_close(got[0, 1:], table[0, 1:][order], "rows 1 to 4 for order 2 0 3 1")

    yield "leaves the given table as it was"
    kept = table.clone()
    answer(kept, order)
    expect_close(kept, table, "the table that was given")

    yield "the model gives the same logits"
    model = ViT(ViTConfig(6, 2, 1, num_classes=3, d_model=8, num_layers=2, num_heads=2, d_ff=8))
    model = model.double().eval()
    x, order = torch.randn(2, 1, 6, 6, dtype=torch.float64), torch.randperm(9)
    shuffled = F.fold(F.unfold(x, 2, stride=2)[:, :, order], (6, 6), 2, stride=2)
    with torch.no_grad():
        model.embeddings.position.normal_()
        want = model(x)
        model.embeddings.position.copy_(answer(model.embeddings.position.clone(), order))
        expect_close(model(shuffled), want, "logits of shuffled images", atol=1e-9)


@checker("ex-vision_transformer-interpolate")
def resize(answer):
    table = torch.randn(1, 17, 3, dtype=torch.float64)

    yield "has shape (1, 1 + G², d)"
    got = answer(table.clone(), 7)
    expect_shape(got, (1, 50, 3), "resize of 4 × 4 to 7 × 7")

    yield "leaves the class token's row"
    expect_close(got[0, 0], table[0, 0], "row 0", atol=1e-9)

    yield "the same size changes nothing"
    expect_close(answer(table.clone(), 4), table, "resize to 4 × 4", atol=1e-9)

    yield "rows stay rows"
    rows = torch.arange(4.0, dtype=torch.float64).repeat_interleave(4)  # grows down, not across
    down = torch.cat([torch.zeros(1, dtype=torch.float64), rows])[None, :, None].repeat(1, 1, 2)
    grid = answer(down, 8)[0, 1:, 0].view(8, 8)
    expect_close(grid, grid[:, :1].repeat(1, 8), "a table that changes from row to row only")
    expect(bool((grid[1:, 0] >= grid[:-1, 0]).all()), "it got smaller down the page")

    yield "interpolates between centres"
    want = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0], dtype=torch.float64)
    expect_close(grid[:, 0], want, "0 1 2 3 on eight places", atol=1e-6)

    yield "agrees with bilinear interpolation"
    for G in (2, 7, 9):
        square = table[:, 1:].mT.reshape(1, 3, 4, 4)
        want = F.interpolate(square, (G, G), mode="bilinear").flatten(2).mT
        expect_close(answer(table.clone(), G)[:, 1:], want, f"resize to {G} × {G}", atol=1e-6)


@checker("ex-vision_transformer-head")
def queries_and_keys(answer):
    def distances(side: int, offset: tuple[int, int]) -> torch.Tensor:
        axis = torch.arange(side, dtype=torch.float64)
        place = torch.cartesian_prod(axis, axis)
        wanted = place + torch.tensor(offset, dtype=torch.float64)
        return (place[None] - wanted[:, None]).square().sum(-1)

    def weights(*arguments) -> torch.Tensor:
        query, key = answer(*arguments)
        return torch.softmax(query.double() @ key.double().T, -1)

    yield "two matrices of three features"
    query, key = answer(4, (0, 1), 30.0)
    expect_shape(query, (16, 3), "the queries")
    expect_shape(key, (16, 3), "the keys")

    yield "with a large α looks at one pixel"
    sharp = weights(4, (0, 1), 30.0)
    expect(float(sharp[5].max()) > 0.99, "got a blur at α = 30, expected one pixel")

    yield "it is the pixel one to the right"
    for index, where in ((4, "the left"), (9, "below"), (1, "above"), (5, "itself")):
        if int(sharp[5].argmax()) == index:
            raise Wrong(f"the pixel in row 1, column 1 looks at {where}, expected to the right")
    expect_close(float(sharp[5].argmax()), 6.0, "the pixel that row 1, column 1 looks at")

    yield "rows come before columns"
    found = int(weights(4, (1, 0), 30.0)[5].argmax())
    expect(found == 9, f"with offset (1, 0), pixel 5 of 16 looks at {found}, expected 9")

    yield "falls as the square of the distance"
    want = torch.softmax(-0.3 * distances(4, (0, 1)), -1)
    expect_close(weights(4, (0, 1), 0.3), want, "weights at α = 0.3", atol=1e-9)

    yield "for every side and offset"
    for side, offset, alpha in ((5, (-1, 1), 0.7), (3, (2, -2), 1.5)):
        want = torch.softmax(-alpha * distances(side, offset), -1)
        expect_close(weights(side, offset, alpha), want, f"weights for {offset}", atol=1e-9)
