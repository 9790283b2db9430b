// State of a trimap's cell: see trimap.py.

enum State { BACKGROUND = 0, UNKNOWN = 1, FOREGROUND = 2 };

// unknown if pi(index) < unknown; foreground if pi(index) < unknown + foreground; else background
__device__ inline State cell_state(long long index,  // row * columns + column
                                   long long cells, int half_bits, long long unknown, long long foreground,
                                   const unsigned int* keys) {  // [8], stream TRIMAP
    const long long position = permute(index, cells, half_bits, keys);
    return position < unknown ? UNKNOWN : position < unknown + foreground ? FOREGROUND : BACKGROUND;
}
