// Cells of a trimap: which one a pixel lies in, and the state of each; see trimap.py.

enum State { BACKGROUND = 0, UNKNOWN = 1, FOREGROUND = 2 };

struct Cells {
    Divisor width, side;  // of the image, of a cell
    unsigned int columns, total, half_bits, unknown, foreground;
};

// A pixel's cell, and its column within the cell.
struct Place {
    unsigned int cell, across;
};

__device__ inline Place place_of(unsigned int pixel, const Cells& cells) {
    const unsigned int y = pixel / cells.width, x = pixel - y * cells.width.value, column = x / cells.side;
    return {y / cells.side * cells.columns + column, x - column * cells.side.value};
}

// The cells that the pixels of a thread block lie in, drawn once and shared: an entry for each cell from `first` on,
// or, where these are too many or not what its threads can work with, for each pixel of the block.
struct Table {
    bool by_pixel;
    unsigned int first, count;
};

__device__ inline Table table_of(unsigned int start, unsigned int end,  // the block's pixels, end not included
                                 const Cells& cells, unsigned int room, bool by_pixel) {
    const unsigned int first = start / cells.width / cells.side * cells.columns;
    const unsigned int count = ((end - 1) / cells.width / cells.side + 1) * cells.columns - first;
    if (by_pixel || count > room) return {true, start, end - start};
    return {false, first, count};
}

// The cell of an entry.
__device__ inline unsigned int cell_of(unsigned int entry, const Table& table, const Cells& cells) {
    const unsigned int index = table.first + entry;
    return table.by_pixel ? place_of(index, cells).cell : index;
}

// Draw the states of a table's cells. One cell takes more passes of the permutation than another: a thread that is done
// goes on with its next cell while others still walk, so that a warp does not wait at each cell for its slowest thread.
// For that a thread must have several cells: few threads draw.
__device__ inline void draw_states(const Table& table, const Cells& cells,
                                   const unsigned int* keys,  // [8], stream TRIMAP
                                   Byte* states) {            // [table.count]
    const unsigned int drawing = min(max(table.count / 4 / 32 * 32, 32u), blockDim.x);
    if (threadIdx.x >= drawing) return;
    unsigned int entry = threadIdx.x, position = cell_of(entry, table, cells);
    while (entry < table.count) {
        position = feistel(position, cells.half_bits, keys);
        if (position >= cells.total) continue;
        // unknown if pi(cell) < unknown; foreground if pi(cell) < unknown + foreground; else background
        const State known = position < cells.unknown + cells.foreground ? FOREGROUND : BACKGROUND;
        states[entry] = (Byte)(position < cells.unknown ? UNKNOWN : known);
        entry += drawing;
        position = cell_of(entry, table, cells);
    }
}
