// Consecutive elements that one thread works on, moved in one access where their address allows it.

template <typename T, unsigned int length>
struct alignas(sizeof(T) * length) Run {
    T values[length];
};

// The first `count` elements at an address; the rest of the run is not set.
template <unsigned int length, typename T>
__device__ inline Run<T, length> load_run(const T* from, unsigned int count,
                                          bool aligned) {  // the address is a multiple of the run, which is whole
    if (aligned) return *(const Run<T, length>*)from;
    Run<T, length> run = {};
#pragma unroll
    for (unsigned int k = 0; k < length; ++k)
        if (k < count) run.values[k] = from[k];
    return run;
}

template <unsigned int length, typename T>
__device__ inline void store_run(const Run<T, length>& run, T* to, unsigned int count, bool aligned) {
    if (aligned) {
        *(Run<T, length>*)to = run;
        return;
    }
#pragma unroll
    for (unsigned int k = 0; k < length; ++k)
        if (k < count) to[k] = run.values[k];
}
