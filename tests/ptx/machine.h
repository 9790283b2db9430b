// What translated PTX runs on: registers, instructions, and the memory of a grid, with every access watched.
// translate.py makes a `struct Thread` that is included between this file's two halves.

#ifndef MACHINE
#define MACHINE

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

typedef uint8_t u8, b8;
typedef uint16_t u16, b16;
typedef uint32_t u32, b32;
typedef uint64_t u64, b64;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef float f32;
typedef double f64;
typedef _Float16 f16;
typedef bool pred;
struct bf16 { u16 bits; };

// A register holds bits; an instruction takes as many of the low ones as its type has.
template <typename T> T as(u64 register_) {
    T value;
    memcpy(&value, &register_, sizeof value);
    return value;
}
template <typename T> u64 bits(T value) {
    u64 register_ = 0;
    memcpy(&register_, &value, sizeof value);
    return register_;
}

// ---- Instructions: op_NAME<TYPE>; integers wrap around ----

template <typename T> struct twice;
template <> struct twice<u16> { typedef u32 type; };
template <> struct twice<u32> { typedef u64 type; };
template <> struct twice<s32> { typedef s64 type; };
template <typename T> using number = std::conditional_t<std::is_floating_point_v<T>, T, u64>;  // to compute with

template <typename T> T op_mov(T a) { return a; }
template <typename T> T op_add(T a, T b) { return (T)((number<T>)a + (number<T>)b); }
template <typename T> T op_sub(T a, T b) { return (T)((number<T>)a - (number<T>)b); }
template <typename T> T op_mul(T a, T b) { return a * b; }
template <typename T> T op_mul_lo(T a, T b) { return (T)((u64)a * (u64)b); }
template <typename T> typename twice<T>::type op_mul_wide(T a, T b) { return (typename twice<T>::type)a * b; }
template <typename T> T op_mul_hi(T a, T b) { return (T)(op_mul_wide(a, b) >> 8 * sizeof(T)); }
template <typename T> T op_mad_lo(T a, T b, T c) { return (T)((u64)a * (u64)b + (u64)c); }
template <typename T> T op_fma(T a, T b, T c) { return std::fma(a, b, c); }
template <typename T> T op_div(T a, T b) { return a / b; }
template <typename T> T op_rem(T a, T b) { return a % b; }
template <typename T> T op_min(T a, T b) { return b < a ? b : a; }
template <typename T> T op_max(T a, T b) { return a < b ? b : a; }
template <typename T> T op_abs(T a) { return std::fabs(a); }
template <typename T> T op_neg(T a) { return (T) - (number<T>)a; }
template <typename T> T op_and(T a, T b) { return a & b; }
template <typename T> T op_or(T a, T b) { return a | b; }
template <typename T> T op_xor(T a, T b) { return a ^ b; }
template <typename T> T op_not(T a) { return (T)(std::is_same_v<T, pred> ? !a : ~a); }
template <typename T> T op_shl(T a, u32 n) { return n < 8 * sizeof(T) ? (T)((u64)a << n) : 0; }
template <typename T> T op_shr(T a, u32 n) { return (T)(a >> std::min<u32>(n, 8 * sizeof(T) - 1) >> (n >= 8 * sizeof(T))); }
template <typename T> T op_bfe(T a, u32 at, u32 length) { return op_shr(a, at & 255) & (T)((1ull << (length & 255)) - 1); }
template <typename T> pred op_setp_eq(T a, T b) { return a == b; }
template <typename T> pred op_setp_ne(T a, T b) { return a != b; }
template <typename T> pred op_setp_lt(T a, T b) { return a < b; }
template <typename T> pred op_setp_le(T a, T b) { return a <= b; }
template <typename T> pred op_setp_gt(T a, T b) { return a > b; }
template <typename T> pred op_setp_ge(T a, T b) { return a >= b; }
template <typename T> T op_selp(T a, T b, pred first) { return first ? a : b; }

template <typename T> T op_prmt(T a, T b, T places) {
    const u64 from = a | (u64)b << 32;
    T result = 0;
    for (int i = 0; i < 4; ++i) {
        const u32 place = places >> 4 * i & 15, byte = from >> 8 * (place & 7) & 255;
        result |= (place & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;  // 8: the byte's sign in its place
    }
    return result;
}

template <typename To, typename From> To op_cvt(From x) {
    if constexpr (std::is_same_v<To, bf16>) {
        const u32 b = bits(x);
        return {(u16)((b & 0x7FFFFFFF) > 0x7F800000 ? 0x7FFF : (b + 0x7FFF + (b >> 16 & 1)) >> 16)};
    } else {
        return (To)x;
    }
}
template <typename To> u32 op_cvt_pair(f32 high, f32 low) {
    return (u32)(bits(op_cvt<To>(high)) << 16 | bits(op_cvt<To>(low)));
}

inline f32 ftz(f32 x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
inline f32 sat(f32 x) { return x > 1 ? 1.0f : x > 0 ? x : 0.0f; }  // NaN becomes 0

// ---- Memory ----

enum Fault { NONE, MISALIGNED, OUT_OF_BOUNDS, RACE, DIVERGED, ENDLESS };  // of which the first is kept

struct Report {
    u64 fault, instruction;
    u64 executed[BLOCKS];                     // basic blocks, by warps
    u64 requests[ACCESSES], sectors[ACCESSES];  // of global memory, by warps: 32 bytes are a sector
};

static Report* report;
static const u64 *buffers, *buffers_end;  // first and one behind the last byte of each
static u32 tid, ntid, ctaid;
static u64 steps;  // of a thread since the last barrier
const u64 MOST_STEPS = 1000000;
static bool counting;
static u64 visits[BLOCKS][32];                       // of a warp's lanes, since the last barrier
static u64 times[ACCESSES][32];                      // likewise, that an instruction touched global memory
static std::vector<std::array<u64, 3>> touched;     // instruction, how often the lane had executed it, sector

alignas(256) static u8 shared[SHARED_BYTES];
enum { NOBODY = -1, SEVERAL = -2 };
static s32 writer[SHARED_BYTES], reader[SHARED_BYTES];  // threads that have touched a byte since the last barrier

static void fault(Fault kind, u64 instruction) {
    if (report->fault == NONE) report->fault = kind, report->instruction = instruction;
}

// Enter a basic block; whether a thread has entered so many that it will never end.
static inline bool lost(u64 block) {
    visits[block][tid % 32] += counting;
    if (++steps < MOST_STEPS) return false;
    return fault(ENDLESS, 0), true;
}

static u8* global_memory(u64 instruction, u64 address, u64 size, bool) {
    static u8 nowhere[16];
    if (address % size) fault(MISALIGNED, instruction);
    const u64* buffer = buffers;
    while (buffer < buffers_end && !(address >= buffer[0] && address + size <= buffer[1])) buffer += 2;
    if (buffer == buffers_end) return fault(OUT_OF_BOUNDS, instruction), nowhere;
    if (counting) touched.push_back({instruction, times[instruction][tid % 32]++, address / 32});  // one, as aligned
    return (u8*)address;
}

static u8* shared_memory(u64 instruction, u64 address, u64 size, bool writes) {
    address = (u32)address;
    if (address % size) fault(MISALIGNED, instruction);
    bool inside = false;
    for (const u64* variable : VARIABLES) inside |= address >= variable[0] && address + size <= variable[1];
    if (!inside) return fault(OUT_OF_BOUNDS, instruction), shared;
    const s32 me = (s32)tid;
    for (u64 i = address; i < address + size; ++i) {
        const bool others_wrote = writer[i] != NOBODY && writer[i] != me;
        const bool others_read = reader[i] != NOBODY && reader[i] != me;
        if (others_wrote || (writes && others_read)) fault(RACE, instruction);
        if (writes) writer[i] = me;
        else reader[i] = reader[i] == NOBODY || reader[i] == me ? me : SEVERAL;
    }
    return shared + address;
}

template <typename T> u64 fetch(const u8* from) {
    T value;
    memcpy(&value, from, sizeof value);
    return bits(value);
}
template <typename T> void put(u8* to, u64 register_) { memcpy(to, &register_, sizeof(T)); }

#else

// ---- A grid ----

// What a warp has done since the last barrier: it executes an instruction as often as the lane that needs it most, if its
// lanes need it at the same time; where they do not, this is too little.
static void count_warp() {
    for (u64 block = 0; block < BLOCKS; ++block) {
        report->executed[block] += *std::max_element(visits[block], visits[block] + 32);
        std::fill_n(visits[block], 32, 0);
    }
    std::sort(touched.begin(), touched.end());
    touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
    for (const auto& [instruction, turn, sector] : touched) ++report->sectors[instruction];
    for (u64 i = 0; i < ACCESSES; ++i) report->requests[i] += *std::max_element(times[i], times[i] + 32);
    memset(times, 0, sizeof times);
    touched.clear();
}

extern "C" void launch(u64 blocks, u64 threads, const u64* args, const u64* ranges, u64 count, bool counts, Report* out) {
    report = out, buffers = ranges, buffers_end = ranges + 2 * count, ntid = threads, counting = counts;
    std::vector<Thread> all(threads);
    for (ctaid = 0; ctaid < blocks; ++ctaid) {
        memset(shared, 0xCD, sizeof shared);  // of nobody yet
        for (Thread& thread : all) thread.barrier = 0;
        for (bool running = true; running;) {
            memset(writer, NOBODY, sizeof writer);
            memset(reader, NOBODY, sizeof reader);
            s32 reached = ENDED;  // what has ended is waited for at no barrier
            for (tid = 0; tid < threads; ++tid) {
                s32& barrier = all[tid].barrier;
                steps = 0;
                if (barrier != ENDED) barrier = all[tid].run(args);
                if (steps == MOST_STEPS) return;
                if (barrier != ENDED && reached != ENDED && barrier != reached) fault(DIVERGED, 0);
                reached = std::max(reached, barrier);
                if (counting && tid % 32 == 31) count_warp();
            }
            running = reached != ENDED;
        }
    }
}

#endif
