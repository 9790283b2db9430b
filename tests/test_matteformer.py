import copy

import pytest
import torch
from reference.matteformer import make_input, perturb, plain_block
from torch import nn
from torch.nn.functional import interpolate, one_hot

from dptmat.models.matteformer import (
    Block,
    MatteFormer,
    PatchMerging,
    Stage,
    kept_shift_mask,
    make_shift_mask,
    region_masks,
    region_tokens,
    stochastic_depth,
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return perturb(MatteFormer()).eval()


def test_sizes_are_those_of_the_published_checkpoint(network):
    state = network.state_dict()
    vectors = [value.numel() for name, value in state.items() if name.endswith(("._u", "._v"))]
    buffers = [value.numel() for name, value in network.named_buffers() if not name.endswith(("._u", "._v"))]
    assert len(state) == 509
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 44_747_130
    assert sum(vectors) == 66_006
    assert sum(buffers) == 44_142


def test_keys_differ_from_the_published_ones_only_in_spectral_norm(network):
    published = {
        name.replace("parametrizations.weight.original", "module.weight_bar")
        .replace("parametrizations.weight.0._u", "module.weight_u")
        .replace("parametrizations.weight.0._v", "module.weight_v")
        for name in network.state_dict()
    }
    assert published >= {
        "encoder.patch_embed.proj.bias",
        "encoder.patch_embed.norm.weight",
        "encoder.layers.2.blocks.5.attn.relative_position_bias_table",
        "encoder.layers.2.blocks.5.attn.relative_position_index",
        "encoder.layers.0.blocks.0.attn.qkv.bias",
        "encoder.layers.0.blocks.0.attn.proj.weight",
        "encoder.layers.3.blocks.1.mlp.fc2.bias",
        "encoder.layers.2.downsample.reduction.weight",
        "encoder.layers.2.downsample.norm.bias",
        "encoder.norm3.weight",
        "encoder.shortcut.5.3.module.weight_u",
        "encoder.shortcut.5.5.running_mean",
        "decoder.layer2.0.conv1.module.weight_bar",
        "decoder.layer2.2.bn2.weight",
        "decoder.layer4.0.upsample.1.module.weight_v",
        "decoder.layer4.0.upsample.2.weight",
        "decoder.conv1.module.weight_bar",
        "decoder.bn1.bias",
        "decoder.refine_OS8.0.weight",
        "decoder.refine_OS1.3.bias",
    }


def test_position_index_is_saved_and_counts_offsets_then_prior_tokens(network):
    index = network.state_dict()["encoder.layers.0.blocks.1.attn.relative_position_index"]
    assert index.dtype == torch.int64
    assert index.shape == (49, 55)
    # By hand: query 0 (row 0, column 0), key 10 (row 1, column 3): (0 - 1 + 6) * 13 + (0 - 3 + 6) = 68.
    assert index[0, 10] == 68
    assert index[48, 0] == 168
    assert index[:, 49:].tolist() == [[169, 170, 171, 172, 173, 174]] * 49


def test_tables_have_a_row_for_every_prior_token_of_the_stage(network):
    rows = [
        [len(block.attn.relative_position_bias_table) for block in stage.blocks] for stage in network.encoder.layers
    ]
    assert rows == [[172, 175], [172, 175], [172, 175, 178, 181, 184, 187], [172, 175]]


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    network = perturb(MatteFormer(drop_path_rate=0)).train()
    result = network(make_input())
    sum((alpha * torch.randn_like(alpha)).sum() for alpha in result.values()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    for stage in network.encoder.layers:
        for block in stage.blocks:
            assert block.attn.relative_position_bias_table.grad[169:].all()  # every token of every set is attended to


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(32, 32), (224, 224), (96, 160), (512, 512)])
def test_alphas_have_the_size_of_the_input(network, height, width):
    with torch.no_grad():
        result = network(make_input(1, height, width))
    assert list(result) == ["alpha_os1", "alpha_os4", "alpha_os8"]
    for alpha in result.values():
        assert alpha.shape == (1, 1, height, width)
        assert alpha.dtype == torch.float32
        assert 0 <= alpha.min() < alpha.max() <= 1


@torch.no_grad()
def test_batch_members_do_not_interact(network):
    x = make_input(3, 96, 64)
    together = network(x)
    for i in range(3):
        alone = network(x[i : i + 1])
        for name, alpha in alone.items():
            # Sums run in another order for another batch size; 1e-5 was seen after some 60 layers on a CPU.
            torch.testing.assert_close(together[name][i : i + 1], alpha, atol=1e-4, rtol=0)


# --- regions and prior tokens ---


def test_regions_are_unknown_background_foreground_at_the_top_left_pixel_of_each_cell():
    trimap = torch.full((1, 32, 32), 0)
    trimap[0, :4] = 1
    trimap[0, 4, 4] = 2  # decides its cell alone
    trimap[0, 9:12, 9:12] = 2  # misses the cell's top left: does not count
    x = torch.cat([torch.zeros(1, 3, 32, 32), one_hot(trimap, 3).permute(0, 3, 1, 2)], dim=1)
    unknown, background, foreground = region_masks(x)[0]
    assert unknown.nonzero().tolist() == [[0, column] for column in range(8)]
    assert foreground.nonzero().tolist() == [[1, 1]]
    assert torch.equal(unknown + background + foreground, torch.ones(8, 8))


@torch.no_grad()
def test_every_stage_samples_the_trimap_nearest(network):
    trimap = one_hot(torch.randint(0, 3, (1, 96, 64)), 3).permute(0, 3, 1, 2)
    seen = []
    handles = [
        s.register_forward_hook(lambda module, args, result: seen.append(args[1])) for s in network.encoder.layers
    ]
    network.encoder(torch.cat([torch.randn(1, 3, 96, 64), trimap], dim=1))
    for handle in handles:
        handle.remove()
    for regions, cell in zip(seen, (4, 8, 16, 32), strict=True):
        assert torch.equal(regions, trimap[:, [1, 0, 2], ::cell, ::cell].float())


def test_without_a_trimap_everything_is_unknown():
    unknown, background, foreground = region_masks(torch.randn(1, 3, 32, 32))[0]
    assert unknown.all()
    assert not background.any()
    assert not foreground.any()


def test_tokens_are_means_over_the_regions_and_zero_for_an_absent_one():
    x = torch.randn(2, 5, 6, 8)
    masks = torch.zeros(2, 3, 5, 6)
    masks[:, 0, :2] = 1
    masks[:, 2, 2:] = 1
    tokens = region_tokens(x, masks)
    torch.testing.assert_close(tokens[:, 0], x[:, :2].mean((1, 2)))
    torch.testing.assert_close(tokens[:, 2], x[:, 2:].mean((1, 2)))
    assert not tokens[:, 1].any()


def test_tokens_are_float32_under_autocast():
    x = torch.full((1, 64, 64, 8), 101.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = region_tokens(x, torch.ones(1, 3, 64, 64, dtype=torch.bfloat16))
    assert tokens.dtype == torch.float32
    # A float32 sum of 4096 values may lose a few thousandths; the nearest bfloat16 is 101.5.
    torch.testing.assert_close(tokens, torch.full((1, 3, 8), 101.3), atol=0.02, rtol=0)


@torch.no_grad()
def test_order_of_the_regions_matters(network):
    x = make_input(1, 96, 96)
    stage, tokens, regions = network.encoder.layers[0], network.encoder.patch_embed(x), region_masks(x)
    assert not torch.allclose(stage(tokens, regions), stage(tokens, regions[:, [0, 2, 1]]), atol=1e-4)


# --- blocks against plain loops ---


# 7 x 7 is a single window, which is shifted and masked too; 9 x 15 needs padding at both sides.
@pytest.mark.parametrize(("height", "width"), [(7, 7), (9, 15)])
@torch.no_grad()
def test_stage_equals_plain_loops(height, width):
    torch.manual_seed(0)
    # Large weights, so that neither a bias nor a token can be missed within the tolerance.
    stage = Stage(64, [0.0, 0.1, 0.2], nn.Identity()).eval()
    for name, p in stage.named_parameters():
        p.add_(torch.randn_like(p) * (1.0 if "table" in name else 0.1))
    x = torch.randn(2, height, width, 64)
    regions = one_hot(torch.randint(0, 3, (2, height, width)), 3).permute(0, 3, 1, 2).float()
    regions[1] = torch.tensor([1.0, 0, 0])[:, None, None]  # an image without background and foreground
    expected = []
    for image, masks in zip(x, regions, strict=True):
        priors = torch.zeros(0, 64)
        for b, block in enumerate(stage.blocks):
            image, priors = plain_block(block, image, priors, masks, shifted=b % 2 == 1)
        expected.append(image)
    # Values are of order 10; 1e-4 is some tens of roundings through three blocks.
    torch.testing.assert_close(stage(x, regions), torch.stack(expected), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shifted", [False, True])
@torch.no_grad()
def test_block_equals_plain_loops(shifted):
    torch.manual_seed(1)
    block = perturb(Block(64, 9, 0.3)).eval()
    x, priors = torch.randn(1, 10, 8, 64), torch.randn(1, 6, 64)
    regions = one_hot(torch.randint(0, 3, (1, 10, 8)), 3).permute(0, 3, 1, 2).float()
    mask = make_shift_mask(14, 14, x.device) if shifted else None
    got_x, got_priors = block(x, priors, regions, mask)
    expected_x, expected_priors = plain_block(block, x[0], priors[0], regions[0], shifted)
    torch.testing.assert_close(got_x[0], expected_x, atol=1e-5, rtol=0)
    torch.testing.assert_close(got_priors[0], expected_priors, atol=1e-5, rtol=0)


@torch.no_grad()
def test_patch_merging_takes_the_cells_column_by_column():
    merging = perturb(PatchMerging(4))
    x = torch.randn(1, 4, 6, 4)
    result = merging(x)
    assert result.shape == (1, 2, 3, 8)
    cell = torch.cat([x[0, 2, 4], x[0, 3, 4], x[0, 2, 5], x[0, 3, 5]])
    torch.testing.assert_close(result[0, 1, 2], merging.reduction(merging.norm(cell)))


@torch.no_grad()
def test_shortcuts_take_normalised_maps_and_the_next_stage_does_not(network):
    seen = {}

    def keep(name):
        return lambda module, args, result: seen.update({name: (args[0], result)})

    encoder = network.encoder
    modules = {f"shortcut{i}": branch for i, branch in enumerate(encoder.shortcut)}
    modules |= {f"stage{s}": stage for s, stage in enumerate(encoder.layers)}
    modules |= {f"downsample{s}": encoder.layers[s].downsample for s in range(3)}
    modules["embedding"] = encoder.patch_embed
    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    x = make_input(1, 96, 64)
    features = encoder(x)
    for handle in handles:
        handle.remove()

    assert [tuple(f.shape[1:]) for f in features] == [
        (32, 96, 64), (32, 48, 32), (64, 24, 16), (128, 12, 8), (256, 6, 4), (512, 3, 2),
    ]  # fmt: skip
    assert torch.equal(seen["shortcut0"][0], x)
    embedded = seen["embedding"][1].permute(0, 3, 1, 2)
    torch.testing.assert_close(
        seen["shortcut1"][0], interpolate(embedded, (48, 32), mode="bilinear", align_corners=True)
    )
    assert torch.equal(seen["stage0"][0], seen["embedding"][1])
    for s in range(4):
        norm = encoder.get_submodule(f"norm{s}")
        torch.testing.assert_close(seen[f"shortcut{s + 2}"][0], norm(seen[f"stage{s}"][1]).permute(0, 3, 1, 2))
    for s in range(3):
        assert torch.equal(seen[f"downsample{s}"][0], seen[f"stage{s}"][1])
        assert torch.equal(seen[f"stage{s + 1}"][0], seen[f"downsample{s}"][1])


# --- training ---


def test_bias_tables_start_from_a_truncated_normal():
    torch.manual_seed(0)
    table = MatteFormer().encoder.layers[3].blocks[1].attn.relative_position_bias_table
    assert table.std().item() == pytest.approx(0.02, rel=0.1)  # 4,200 values: 1 % of standard error
    assert abs(table.mean().item()) < 0.002


def test_stochastic_depth_rises_linearly_to_its_rate(network):
    rates = [block.drop_path_rate for stage in network.encoder.layers for block in stage.blocks]
    assert rates == pytest.approx([0.3 * i / 11 for i in range(12)])


def test_stochastic_depth_draws_once_per_index_and_keeps_the_mean():
    torch.manual_seed(0)
    kept = stochastic_depth(torch.ones(5000, 3, 4), 0.25, drawn=2)
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 4 / 3]))
    assert torch.equal(kept, kept[:, :, :1].expand_as(kept))
    assert 0.1 < (kept[:, 0, 0] != kept[:, 1, 0]).float().mean() < 0.6  # 2 * 0.25 * 0.75 = 0.375 expected
    # Standard error of a mean of 15,000 draws is 0.0047.
    assert kept.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("silent", ["attn.proj", "mlp.fc2"])  # the other residual is then seen alone
@torch.no_grad()
def test_block_drops_whole_samples_and_single_prior_tokens(silent):
    torch.manual_seed(0)
    block = perturb(Block(32, 3, 0.5)).train()
    for p in block.get_submodule(silent).parameters():
        p.zero_()
    x, regions = torch.randn(64, 7, 7, 32), torch.ones(64, 3, 7, 7)
    after, priors = block(x, torch.zeros(64, 0, 32), regions, None)
    same = (after == x).all(3).flatten(1)
    assert torch.equal(same.any(1), same.all(1))  # all positions of a sample together
    assert 16 < same.all(1).sum() < 48  # half of 64
    same = (priors == region_tokens(x, regions)).all(2)
    assert 60 < same.sum() < 132  # half of 192
    assert (same.sum(1) % 3 > 0).any()  # the tokens of an image are drawn apart


@torch.no_grad()
def test_training_moves_the_spectral_norm_vectors_and_evaluation_does_not(network):
    network = copy.deepcopy(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(make_input(1))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.train()(make_input(2))
    vectors = [name for name in before if name.endswith(("._u", "._v"))]
    state = network.state_dict()
    assert all(not torch.equal(state[name], before[name]) for name in vectors)


@torch.no_grad()
def test_state_dict_and_deepcopy_give_the_same_network(network):
    x = make_input(1)
    expected = network(x)
    fresh = MatteFormer().eval()
    fresh.load_state_dict(network.state_dict())
    for other in (fresh, copy.deepcopy(network)):
        result = other(x)
        assert all(torch.equal(result[name], alpha) for name, alpha in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("training", [pytest.param(False, marks=pytest.mark.exhaustive), True])
def test_compiles_without_a_graph_break(network, training):
    network = copy.deepcopy(network).train(training)
    for stage in network.encoder.layers:
        for block in stage.blocks:
            block.drop_path_rate = 0.0  # draws cannot be compared
    x = make_input(2)
    with torch.no_grad():
        expected = copy.deepcopy(network)(x)
        result = torch.compile(network, backend="eager", fullgraph=True)(x)
    for name, alpha in expected.items():
        # The same operators in the same order, so equal but for the order of threads.
        torch.testing.assert_close(result[name], alpha, atol=1e-5, rtol=0)


def test_masks_are_made_once_for_a_size_and_serve_a_training_after_an_evaluation(network):
    kept_shift_mask.cache_clear()
    x = make_input(1)
    with torch.inference_mode():
        network(x)
        network(x)
    # maps of 16, 8, 4 and 2 positions a side: padded to 21, 14, 7 and 7
    assert (kept_shift_mask.cache_info().misses, kept_shift_mask.cache_info().hits) == (3, 5)
    network(x)["alpha_os1"].mean().backward()
    network.zero_grad()


@torch.no_grad()
def test_autocast_stays_close_and_finite(network):
    x = make_input(2)
    expected = network(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(x.bfloat16())
    for name, alpha in result.items():
        assert alpha.dtype == torch.float32
        # bfloat16 has 8 bits, and about 60 layers follow each other.
        torch.testing.assert_close(alpha, expected[name], atol=0.1, rtol=0)


def test_learns_under_autocast():
    torch.manual_seed(0)
    network = MatteFormer().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = network(make_input(2))
    sum(alpha.mean() for alpha in result.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@torch.no_grad()
def test_three_channels_need_no_trimap():
    network = MatteFormer(in_channels=3).eval()
    assert network.encoder.patch_embed.proj.in_channels == 3
    result = network(torch.randn(1, 3, 64, 96))
    assert all(alpha.shape == (1, 1, 64, 96) for alpha in result.values())
