// synthesize: one thread works on 16 consecutive pixels of a sample (one Philox block of alpha bytes),
// a thread block on one sample. synthesize.py states the formula; the order of operations here is the same.

// Channel c of a pixel after the colour matrix of its view, 0..255.
__device__ inline float colored(const unsigned char* rgb,  // [3]
                                const float* color,        // [3, 3] or null
                                int c) {
    if (!color) return rgb[c];
    const float* row = color + 3 * c;
    return fminf(fmaxf(row[0] * rgb[0] + row[1] * rgb[1] + row[2] * rgb[2], 0.0f), 255.0f);
}

extern "C" __global__ void synthesize(const unsigned char* __restrict__ views,  // [N, H, W, 3]
                                      const long long* __restrict__ ids,        // [N]
                                      const float* __restrict__ color,          // [N, 3, 3] or null
                                      Number* __restrict__ input,               // [N, 6, H, W] or [N, H, W, 6]
                                      Number* __restrict__ alpha,               // [N, 1, H, W]
                                      Number* __restrict__ contrast,            // [N, 1, H, W]
                                      unsigned char* __restrict__ trimap,       // [N, 1, H, W]
                                      long long* __restrict__ pairing,          // [N]
                                      unsigned long long seed, long long samples,
                                      long long tiles,  // thread blocks of a sample
                                      long long height, long long width,
                                      long long cell,  // side in pixels
                                      long long columns, long long cells, long long half_bits, long long unknown,
                                      long long foreground,
                                      long long by_cell,          // 1: an alpha for each cell; 0: for each pixel
                                      long long channels_last) {  // 1: input is [N, H, W, 6]
    const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    __shared__ unsigned int keys[8];
    __shared__ long long partner;
    const long long sample = blockIdx.x / tiles, pixels = height * width;
    if (threadIdx.x == 0) {
        round_keys(seed, TRIMAP, ids[sample], keys);
        // s = 1 + word0 % (N - 1), of the batch's first id
        partner = (sample + 1 + philox(seed, PAIRING, ids[0], 0).x % (samples - 1)) % samples;
    }
    __syncthreads();

    const long long first = 16 * (blockIdx.x % tiles * blockDim.x + threadIdx.x), end = min(first + 16, pixels);
    if (first == 0) pairing[sample] = partner;
    const unsigned char* const fg = views + 3 * pixels * sample;
    const unsigned char* const bg = views + 3 * pixels * partner;
    const float* const fg_color = color ? color + 9 * sample : color;
    const float* const bg_color = color ? color + 9 * partner : color;
    const long long pixel_stride = channels_last ? 6 : 1, channel_stride = channels_last ? 1 : pixels;

    Noise noise = {-1};
    long long index = -1;  // of the last pixel's cell
    State state = BACKGROUND;
    for (long long p = first; p < end; ++p) {
        const long long new_index = p / width / cell * columns + p % width / cell;
        if (new_index != index) {
            index = new_index;
            state = cell_state(index, cells, (int)half_bits, unknown, foreground, keys);
        }
        const Stream stream = by_cell ? ALPHA_BLOCK : ALPHA_PIXEL;
        const unsigned int byte = noise_byte(noise, seed, stream, ids[sample], by_cell ? index : p);
        const float a = alpha_value(state, byte) / 255.0f;

        Number* const out = input + 6 * pixels * sample + p * pixel_stride;
        float sum = 0.0f;
        for (int c = 0; c < 3; ++c) {
            const float f = colored(fg + 3 * p, fg_color, c), b = colored(bg + 3 * p, bg_color, c);
            // input_c = ((a F + (1 - a) B) / 255 - mean_c) / std_c
            store(((a * f + (1.0f - a) * b) / 255.0f - mean[c]) / std[c], &out[c * channel_stride]);
            // contrast = sum_c |F - B| / (255 std_c)
            sum += fabsf(f - b) / (255.0f * std[c]);
            // channels 3, 4, 5: one-hot background, unknown, foreground
            store(state == c ? 1.0f : 0.0f, &out[(3 + c) * channel_stride]);
        }
        store(a, &alpha[pixels * sample + p]);
        store(sum, &contrast[pixels * sample + p]);
        trimap[pixels * sample + p] = state;
    }
}
