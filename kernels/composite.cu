// composite and its gradient: one thread works on one pixel of a sample, three channels.

typedef decltype(load(Number())) Real;  // what the arithmetic is done in

extern "C" __global__ void composite(const Number* __restrict__ fg,     // [N, 3, H, W]
                                     const Number* __restrict__ bg,     // [N, 3, H, W]
                                     const Number* __restrict__ alpha,  // [N, 1, H, W]
                                     Number* __restrict__ out,          // [N, 3, H, W]
                                     long long samples,
                                     long long pixels) {  // H * W
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= samples * pixels) return;
    const Real a = load(alpha[i]);
    for (int c = 0; c < 3; ++c) {
        const long long k = (i / pixels * 3 + c) * pixels + i % pixels;
        // C = a F + (1 - a) B
        store(a * load(fg[k]) + (1 - a) * load(bg[k]), &out[k]);
    }
}

extern "C" __global__ void composite_backward(const Number* __restrict__ grad,   // [N, 3, H, W]
                                              const Number* __restrict__ fg,     // [N, 3, H, W]
                                              const Number* __restrict__ bg,     // [N, 3, H, W]
                                              const Number* __restrict__ alpha,  // [N, 1, H, W]
                                              Number* __restrict__ grad_fg,      // [N, 3, H, W]
                                              Number* __restrict__ grad_bg,      // [N, 3, H, W]
                                              Number* __restrict__ grad_alpha,   // [N, 1, H, W]
                                              long long samples,
                                              long long pixels) {  // H * W
    const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= samples * pixels) return;
    const Real a = load(alpha[i]);
    Real sum = 0;
    for (int c = 0; c < 3; ++c) {
        const long long k = (i / pixels * 3 + c) * pixels + i % pixels;
        const Real g = load(grad[k]);
        store(a * g, &grad_fg[k]);        // dC/dF = a
        store((1 - a) * g, &grad_bg[k]);  // dC/dB = 1 - a
        sum += g * (load(fg[k]) - load(bg[k]));  // dC/da = F - B, summed over channels
    }
    store(sum, &grad_alpha[i]);
}
