from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tunedeck.methods.packed_embedding import PackedEmbedding, embedding_shape, unpacked

ROWS, HIDDEN = 50, 64


def random_embedding(dtype: torch.dtype = torch.float32) -> PackedEmbedding:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(256, (ROWS, HIDDEN // 2), generator=generator, dtype=torch.uint8)
    scales = torch.rand(ROWS, HIDDEN // 32, generator=generator).half()
    return PackedEmbedding(codes, scales.view(torch.int16), dtype)


def test_a_block_is_its_scale_times_numbers_from_minus_8_to_7() -> None:
    codes = torch.zeros(1, 16, dtype=torch.uint8)
    codes[0, 0], codes[0, 15] = 0x90, 0x0F  # numbers 0 and 16, numbers 15 and 31
    embedding = PackedEmbedding(codes, torch.tensor([[0.5]]).half().view(torch.int16), torch.float32)
    row = embedding(torch.tensor([0]))[0]
    assert row[[0, 16, 15, 31, 1]].tolist() == [-4.0, 0.5, 3.5, -4.0, -4.0]


def test_tokens_of_a_batch_are_those_of_the_whole_table_bit_for_bit() -> None:
    ids = torch.randint(ROWS, (3, 7))
    for dtype in (torch.float32, torch.bfloat16):
        embedding = random_embedding(dtype)
        assert embedding(ids).dtype == dtype
        assert torch.equal(embedding(ids), F.embedding(ids, embedding.dense()))
        assert torch.equal(embedding.dense(), random_embedding().dense().to(dtype))


def test_another_precision_of_the_model_leaves_the_scales_exact() -> None:
    model = nn.Sequential(random_embedding())
    before = model(torch.arange(ROWS))
    assert torch.equal(model.to(torch.bfloat16)(torch.arange(ROWS)), before)


def test_single_values_are_those_of_the_flat_table() -> None:
    embedding = random_embedding()
    assert torch.equal(embedding.values_at(slice(0, 3200, 77)), embedding.dense().flatten()[0:3200:77])


def test_unpacked_it_looks_up_its_table_and_is_packed_again_afterwards() -> None:
    embedding = random_embedding()
    ids = torch.arange(ROWS)
    before = embedding(ids)
    with unpacked(nn.Sequential(embedding)):
        assert len(list(embedding.parameters())) == 1
        assert torch.equal(embedding(ids), before)
    assert not list(embedding.parameters())
    assert embedding_shape(embedding) == (ROWS, HIDDEN)
