// The gradient of composite: a thread works on consecutive pixels of a sample that fill 16 bytes of a plane, in all
// three channels.

const unsigned int PIXELS_PER_THREAD = 16 / sizeof(Number);

typedef Vec<Number, PIXELS_PER_THREAD> Values;
typedef decltype(load(Number())) Real;  // what the arithmetic is done in

extern "C" __global__ void composite_backward(const Number* __restrict__ grad,   // [N, 3, H, W]
                                              const Number* __restrict__ fg,     // [N, 3, H, W]
                                              const Number* __restrict__ bg,     // [N, 3, H, W]
                                              const Number* __restrict__ alpha,  // [N, channels, H, W]
                                              Number* __restrict__ grad_fg,      // [N, 3, H, W]
                                              Number* __restrict__ grad_bg,      // [N, 3, H, W]
                                              Number* __restrict__ grad_alpha,   // [N, channels, H, W]
                                              long long tiles,                   // thread blocks of a sample
                                              long long pixels,                  // H * W
                                              long long channels,                // of alpha: 1 or 3
                                              long long aligned) {  // 1: every Vec starts at a multiple of 16 bytes
    const auto [sample, first, count] = run_of_thread<PIXELS_PER_THREAD>(tiles, pixels);
    if (!count) return;
    Values a;
    Real sums[PIXELS_PER_THREAD] = {};
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        const long long of_alpha = (sample * channels + (c < channels ? c : 0)) * pixels + first;
        if (c < channels) a = load_vec<Values>(alpha + of_alpha, count, aligned);
        const long long at = (sample * 3 + c) * pixels + first;
        const Values g = load_vec<Values>(grad + at, count, aligned);
        const Values f = load_vec<Values>(fg + at, count, aligned), b = load_vec<Values>(bg + at, count, aligned);
        Values over, under, sum;
#pragma unroll
        for (unsigned int k = 0; k < PIXELS_PER_THREAD; ++k) {
            const Real x = load(g.values[k]);
            store(load(a.values[k]) * x, &over.values[k]);         // dC/dF = a
            store((1 - load(a.values[k])) * x, &under.values[k]);  // dC/dB = 1 - a
            const Real product = x * (load(f.values[k]) - load(b.values[k]));
            // dC/da = F - B, summed over the channels that an alpha serves
            sums[k] = c && channels == 1 ? sums[k] + product : product;
            store(sums[k], &sum.values[k]);
        }
        store_vec(over, grad_fg + at, count, aligned);
        store_vec(under, grad_bg + at, count, aligned);
        if (channels == 3 || c == 2) store_vec(sum, grad_alpha + of_alpha, count, aligned);
    }
}
