"""The graph of pre-training: paths in, augmented square views out, on the GPU where there is one."""

from nvidia.dali import fn, pipeline_def, types

# A photograph more than this many times longer than wide is shrunk further: a strip of pixels cannot fill the memory.
_LONGEST_ASPECT = 4


@pipeline_def
def pretrain_graph(feed, size, gpu):
    """Read, decode, shrink, warp.

    Args:
        feed: Callable that gives the arguments of one batch: paths as uint8 [bytes] each, affine float32 [N, 2, 3],
            color float32 [N, 3, 3], ids int64 [N] (see ``Augmentation.matrices``).
        size: Side of the square views in pixels.
        gpu: Whether to decode and warp on the GPU.

    Returns:
        views uint8 [N, size, size, 3] RGB, color float32 [N, 3, 3], ids int64 [N].
    """
    path, affine, color, ids = fn.external_source(
        feed, num_outputs=4, batch=True, dtype=[types.UINT8, types.FLOAT, types.FLOAT, types.INT64], ndim=[1, 2, 2, 0]
    )
    encoded = fn.io.file.read(path)
    photo = fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=types.RGB)  # from here on the GPU
    photo = fn.resize(
        photo,
        size=[size, size],
        mode="not_smaller",
        max_size=_LONGEST_ASPECT * size,
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )
    shape = photo.shape(dtype=types.FLOAT)
    centre = fn.stack(shape[1], shape[0]) * 0.5  # x, y
    affine = fn.transforms.translation(affine, offset=centre)
    # Without a fill value, pixels from outside the photograph repeat its edge.
    views = fn.warp_affine(photo, matrix=affine, size=[size, size], interp_type=types.INTERP_LINEAR, inverse_map=True)
    return (views, color.gpu(), ids.gpu()) if gpu else (views, color, ids)
