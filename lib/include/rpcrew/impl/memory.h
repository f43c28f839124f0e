/* Arenas and buffers, for transports and protocols. */
#ifndef RPCREW_IMPL_MEMORY_H
#define RPCREW_IMPL_MEMORY_H

#include <rpcrew/value.h>

/* A bump allocator: many small things, freed together. All zero is an empty one. One thread at a time. */
struct crew_arena {
    struct crew_chunk *chunks; /* newest first */
    char *next, *end;          /* free room of the newest */
    size_t wanted;             /* what it took before it was reset: its first chunk then has all of it */
};

CREW_API void crew_arena_fini(crew_arena *arena);
/* Bytes that it holds, used or not. */
CREW_API size_t crew_arena_size(const crew_arena *arena);
enum { CREW_ARENA_ALIGNMENT = 8 }; /* for pointers and doubles */

/* For crew_arena_alloc: where the newest chunk has no room. */
CREW_API void *crew_arena_alloc_more(crew_arena *arena, size_t size);

/* Aligned for pointers and doubles; NULL without memory, and never for a size of 0. */
static inline void *crew_arena_alloc(crew_arena *arena, size_t size)
{
    const size_t mask = CREW_ARENA_ALIGNMENT - 1;
    size_t rounded = size ? (size + mask) & ~mask : CREW_ARENA_ALIGNMENT;
    if (size > SIZE_MAX / 2 || (size_t)(arena->end - arena->next) < rounded)
        return crew_arena_alloc_more(arena, size);
    char *place = arena->next;
    arena->next += rounded;
    return place;
}

/* The same, zeroed. */
CREW_API void *crew_arena_zalloc(crew_arena *arena, size_t size);
/* A copy with a NUL behind it; data is NULL without memory. */
CREW_API crew_string crew_arena_string(crew_arena *arena, crew_string text);

/* Bytes that grow at their end. All zero is an empty one. A failed append is remembered and makes all later
 * ones do nothing, so that a writer checks once, at its end. */
typedef struct crew_buffer {
    char *data;
    size_t size, capacity;
    bool failed;
} crew_buffer;

CREW_API void crew_buffer_fini(crew_buffer *buffer);
/* Empties it; keeps memory of a modest size for next time. */
CREW_API void crew_buffer_clear(crew_buffer *buffer);
/* For crew_buffer_room: where there is not as much. */
CREW_API char *crew_buffer_grow(crew_buffer *buffer, size_t size);

/* Room for size more bytes, which are not the buffer's yet: who fills it adds to its size. NULL without
 * memory. */
static inline char *crew_buffer_room(crew_buffer *buffer, size_t size)
{
    if (buffer->failed || buffer->capacity - buffer->size < size || !buffer->capacity)
        return crew_buffer_grow(buffer, size);
    return buffer->data + buffer->size;
}

/* Room for size more bytes, to be filled by the caller; NULL without memory. */
CREW_API char *crew_buffer_extend(crew_buffer *buffer, size_t size);
CREW_API void crew_buffer_append(crew_buffer *buffer, const void *bytes, size_t size);
CREW_API void crew_buffer_text(crew_buffer *buffer, const char *text);
CREW_API void crew_buffer_printf(crew_buffer *buffer, const char *format, ...) CREW_PRINTF(2, 3);

/* Moves the bytes to the arena, as crew_arena_string does, and empties the buffer. data is NULL without
 * memory, also if an append had failed. */
CREW_API crew_string crew_buffer_move(crew_buffer *buffer, crew_arena *arena);

/* Ends a writing that went as status says: the bytes are *bytes' then, with a NUL behind their size, or, on
 * failure, freed. CREW_NO_MEMORY if an append had failed. The buffer is empty. */
CREW_NODISCARD CREW_API crew_status crew_buffer_give(crew_buffer *buffer, crew_status status,
                                                     crew_bytes *bytes);

static inline crew_string crew_buffer_string(const crew_buffer *buffer)
{
    crew_string s = { buffer->data, buffer->size };
    return s;
}

#endif
