/*
 * A ring's memory, to the byte: docs/protocol.md as C structs, for programs that write their own client. Programs that use the library
 * don't need this header. All words are unsigned 64-bit integers, little endian; slots' words and the counters are shared with the other
 * side, and are to be accessed atomically, in the order and with the fences that docs/protocol.md says.
 */
#ifndef RINGGEAR_LAYOUT_H
#define RINGGEAR_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

/* The header's first word: the bytes RINGGEAR. */
#define RINGGEAR_LAYOUT_MAGIC UINT64_C(0x52414547474e4952)
/* The layout's version, the header's second word. A client that finds another must not write. */
#define RINGGEAR_LAYOUT_VERSION 1
/* What slots and the whole memory are rounded up to, whatever the machine's page size. */
#define RINGGEAR_LAYOUT_PAGE 4096
#define RINGGEAR_LAYOUT_MIN_SLOTS 2
#define RINGGEAR_LAYOUT_MAX_SLOTS 32
#define RINGGEAR_LAYOUT_MAX_MEMORY_BYTES 1073741824
#define RINGGEAR_LAYOUT_COMMITTED 1024
#define RINGGEAR_LAYOUT_SUPERSEDED 1032
#define RINGGEAR_LAYOUT_WRITER_WAITS 1040
#define RINGGEAR_LAYOUT_TAKEN 1152
#define RINGGEAR_LAYOUT_READER_WAITS 1160
#define RINGGEAR_LAYOUT_FREED 1168
#define RINGGEAR_LAYOUT_POLICY 200
#define RINGGEAR_LAYOUT_SLOT_HEADERS 4096
#define RINGGEAR_LAYOUT_SLOT_HEADER_BYTES 128

/* A slot's states, the low two bits of its word; the rest is the frame's sequence. */
enum {
    RINGGEAR_LAYOUT_FREE = 0,
    RINGGEAR_LAYOUT_WRITING = 1,
    RINGGEAR_LAYOUT_READY = 2,
    RINGGEAR_LAYOUT_READING = 3
};

/* What a full ring does. */
enum {
    /* It gives the producer its oldest ready slot back. */
    RINGGEAR_LAYOUT_LATEST = 0,
    /* It loses nothing: the producer waits until `freed` rises. */
    RINGGEAR_LAYOUT_LOSSLESS = 1
};

typedef struct ringgear_layout_plane {
    uint64_t offset;
    uint64_t stride;
    uint64_t row_bytes;
    uint64_t rows;
} ringgear_layout_plane;

/* The memory's first page. The daemon writes the words up to the planes before it answers `opened`. */
typedef struct ringgear_layout_header {
    uint64_t magic;
    uint64_t version;
    uint64_t memory_bytes;
    uint64_t slots;
    uint64_t slot_headers_offset;
    uint64_t slot_header_bytes;
    uint64_t data_offset;
    uint64_t slot_bytes;
    uint64_t frame_bytes;
    uint64_t format;
    uint64_t width;
    uint64_t height;
    uint64_t planes;
    ringgear_layout_plane plane[3];
    /* Who gives way in a full ring: RINGGEAR_LAYOUT_LATEST or RINGGEAR_LAYOUT_LOSSLESS. */
    uint64_t policy;
    /* Of a ring of sound: samples a second, and channels; else 0. */
    uint64_t rate;
    uint64_t channels;
    uint64_t reserved0[100];
    /* The producer's counters, and whether it sleeps on `freed`. */
    uint64_t committed;
    uint64_t superseded;
    uint64_t writer_waits;
    uint64_t reserved1[13];
    /* The daemon's counter, for information; whether it sleeps on `committed`; how many slots it has given back. */
    uint64_t taken;
    uint64_t reader_waits;
    uint64_t freed;
    uint64_t reserved2[365];
} ringgear_layout_header;

/* A slot's header; slot i's is at RINGGEAR_LAYOUT_SLOT_HEADERS + i * sizeof(ringgear_layout_slot). */
typedef struct ringgear_layout_slot {
    /* sequence << 2 | state. */
    uint64_t word;
    uint64_t frame_number;
    /* CLOCK_MONOTONIC in nanoseconds; 0: not known. */
    uint64_t captured;
    /* Of a ring of sound: how many bytes of the slot the block has. */
    uint64_t block_bytes;
    uint64_t reserved[12];
} ringgear_layout_slot;

/* Fails to compile where `holds` is false, in every C and C++. */
#define RINGGEAR_LAYOUT_ASSERT(name, holds) typedef char ringgear_layout_assert_##name[(holds) ? 1 : -1]

RINGGEAR_LAYOUT_ASSERT(plane, offsetof(ringgear_layout_header, plane) == 104 && sizeof(ringgear_layout_plane) == 32);
RINGGEAR_LAYOUT_ASSERT(committed, offsetof(ringgear_layout_header, committed) == RINGGEAR_LAYOUT_COMMITTED);
RINGGEAR_LAYOUT_ASSERT(superseded, offsetof(ringgear_layout_header, superseded) == RINGGEAR_LAYOUT_SUPERSEDED);
RINGGEAR_LAYOUT_ASSERT(policy, offsetof(ringgear_layout_header, policy) == RINGGEAR_LAYOUT_POLICY);
RINGGEAR_LAYOUT_ASSERT(writer_waits, offsetof(ringgear_layout_header, writer_waits) == RINGGEAR_LAYOUT_WRITER_WAITS);
RINGGEAR_LAYOUT_ASSERT(taken, offsetof(ringgear_layout_header, taken) == RINGGEAR_LAYOUT_TAKEN);
RINGGEAR_LAYOUT_ASSERT(reader_waits, offsetof(ringgear_layout_header, reader_waits) == RINGGEAR_LAYOUT_READER_WAITS);
RINGGEAR_LAYOUT_ASSERT(freed, offsetof(ringgear_layout_header, freed) == RINGGEAR_LAYOUT_FREED);
RINGGEAR_LAYOUT_ASSERT(header, sizeof(ringgear_layout_header) == RINGGEAR_LAYOUT_SLOT_HEADERS);
RINGGEAR_LAYOUT_ASSERT(slot, sizeof(ringgear_layout_slot) == RINGGEAR_LAYOUT_SLOT_HEADER_BYTES);

#endif
