// warp: a thread makes one pixel of one sample, in all channels.

enum Interpolation { NEAREST, LINEAR, CUBIC, LANCZOS };
const int MOST_TAPS = 8;  // in each direction

// One channel of one image; zero outside.
struct Plane {
    const float* values;
    long long height, width;
    __device__ float at(long long y, long long x) const {
        return y >= 0 && y < height && x >= 0 && x < width ? values[y * width + x] : 0.0f;
    }
};

// The weights of pixels -1..2 for a position f after pixel 0.
__device__ inline void cubic(float f, float* weights) {
    const float a = -0.75f, before = f + 1, after = 1 - f;
    weights[0] = ((a * before - 5 * a) * before + 8 * a) * before - 4 * a;
    weights[1] = ((a + 2) * f - (a + 3)) * f * f + 1;
    weights[2] = ((a + 2) * after - (a + 3)) * after * after + 1;
    weights[3] = 1 - weights[0] - weights[1] - weights[2];
}

__device__ inline float blend(const Plane& plane, long long top, long long left, float fy, float fx) {
    float here = plane.at(top, left), below = plane.at(top + 1, left);
    here += fx * (plane.at(top, left + 1) - here);
    below += fx * (plane.at(top + 1, left + 1) - below);
    return here + fy * (below - here);
}

__device__ inline float sum(const Plane& plane, long long top, long long left, int taps, const float* down,
                            const float* across) {
    float total = 0;
    for (int i = 0; i < taps; ++i)
        for (int j = 0; j < taps; ++j) total += down[i] * across[j] * plane.at(top + i, left + j);
    return min(max(total, 0.0f), 1.0f);
}

extern "C" __global__ void warp(const float* __restrict__ images,             // [N, C, H, W]
                                const long long* __restrict__ matrices,       // [N, 2, 3]: 1/65536 of a pixel
                                const long long* __restrict__ interpolation,  // [N]
                                const float* __restrict__ lanczos,            // [32, MOST_TAPS]
                                float* __restrict__ out,                      // [N, C, H, W]
                                long long samples, long long channels, long long height, long long width) {
    const long long pixels = height * width, at = (long long)blockIdx.x * THREADS + threadIdx.x;
    if (at >= samples * pixels) return;
    const long long sample = at / pixels, pixel = at - sample * pixels;
    const long long y = pixel / width, x = pixel - y * width;
    const long long* m = matrices + 6 * sample;
    const int kind = (int)interpolation[sample], taps = kind == LANCZOS ? 8 : 4;

    // to the nearest pixel, or 1/32 of one
    const long long half = kind == NEAREST ? 32768 : kind == LANCZOS ? 1024 : 0;
    const long long sx = m[0] * x + m[1] * y + m[2] + half, sy = m[3] * x + m[4] * y + m[5] + half;
    const long long left = sx >> 16, top = sy >> 16;
    const float fx = (float)(sx & 65535) / 65536, fy = (float)(sy & 65535) / 65536;
    float across[MOST_TAPS], down[MOST_TAPS];
    if (kind == CUBIC) {
        cubic(fx, across);
        cubic(fy, down);
    } else if (kind == LANCZOS) {
        for (int i = 0; i < MOST_TAPS; ++i) {
            across[i] = lanczos[(sx >> 11 & 31) * MOST_TAPS + i];
            down[i] = lanczos[(sy >> 11 & 31) * MOST_TAPS + i];
        }
    }
    for (long long c = 0; c < channels; ++c) {
        const Plane plane = {images + (sample * channels + c) * pixels, height, width};
        float value;
        if (kind == NEAREST) value = plane.at(top, left);
        else if (kind == LINEAR) value = blend(plane, top, left, fy, fx);
        else value = sum(plane, top + 1 - taps / 2, left + 1 - taps / 2, taps, down, across);
        out[(sample * channels + c) * pixels + pixel] = value;
    }
}
