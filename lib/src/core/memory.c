/* Arenas and growing buffers: all memory of a message is in these. */
#include "core/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
    FIRST_CHUNK = 2048,
    LARGEST_CHUNK = 1 << 20,
    PAGES_FROM = 128 << 10,
    KEPT_BYTES = 64 << 10 /* what a cleared buffer keeps for its next use; an arena, a chunk of any size but
                             those that are larger than the largest */
};

struct crew_chunk {
    struct crew_chunk *older;
    size_t size;  /* of data */
    size_t total; /* of it and all older ones */
    char data[];
};

_Static_assert(offsetof(struct crew_chunk, data) % CREW_ARENA_ALIGNMENT == 0, "chunks begin aligned");

void crew_bytes_free(crew_bytes *bytes)
{
    if (!bytes)
        return;
    free(bytes->data);
    *bytes = (crew_bytes){ 0 };
}

/* malloc does the same at first, and learns from large pieces that are freed to keep the next ones. */
void *crew_pages_new(size_t size)
{
    if (size < PAGES_FROM)
        return malloc(size);
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
}

void crew_pages_free(void *pages, size_t size)
{
    if (size < PAGES_FROM)
        free(pages);
    else if (pages)
        (void)munmap(pages, size);
}

crew_status crew_arena_new(crew_arena **arena)
{
    crew_arena *made = calloc(1, sizeof *made);
    if (!made)
        return CREW_NO_MEMORY;
    *arena = made;
    return CREW_OK;
}

void crew_arena_free(crew_arena *arena)
{
    if (!arena)
        return;
    crew_arena_fini(arena);
    free(arena);
}

/* The chunk, and all that are older. */
static void free_chunks(struct crew_chunk *chunk)
{
    while (chunk) {
        struct crew_chunk *older = chunk->older;
        crew_pages_free(chunk, sizeof *chunk + chunk->size);
        chunk = older;
    }
}

void crew_arena_fini(crew_arena *arena)
{
    free_chunks(arena->chunks);
    *arena = (crew_arena){ 0 };
}

size_t crew_arena_size(const crew_arena *arena)
{
    return arena->chunks ? arena->chunks->total : 0;
}

/* One chunk is kept. Of several none is, but next time there is one with room for all, up to the largest. */
void crew_arena_reset(crew_arena *arena)
{
    struct crew_chunk *kept = arena->chunks;
    if (!kept)
        return;
    if (kept->older || kept->size > LARGEST_CHUNK) {
        size_t total = kept->total;
        crew_arena_fini(arena);
        arena->wanted = total < LARGEST_CHUNK ? total : LARGEST_CHUNK;
        return;
    }
    arena->next = kept->data;
    arena->end = kept->data + kept->size;
}

static bool arena_grow(crew_arena *arena, size_t size)
{
    size_t total = crew_arena_size(arena);
    size_t room = total ? total : arena->wanted; /* so that no more is idle than is used */
    if (room < FIRST_CHUNK)
        room = FIRST_CHUNK;
    if (room > LARGEST_CHUNK)
        room = LARGEST_CHUNK;
    if (room < size)
        room = size;
    struct crew_chunk *chunk = crew_pages_new(sizeof *chunk + room);
    if (!chunk)
        return false;
    chunk->older = arena->chunks;
    chunk->size = room;
    chunk->total = total + room;
    arena->chunks = chunk;
    arena->next = chunk->data;
    arena->end = chunk->data + room;
    return true;
}

void *crew_arena_alloc_more(crew_arena *arena, size_t size)
{
    if (size > SIZE_MAX / 2 || !arena_grow(arena, size + CREW_ARENA_ALIGNMENT))
        return NULL;
    return crew_arena_alloc(arena, size);
}

void crew_arena_trim(crew_arena *arena, const char *place, size_t size, size_t used)
{
    const size_t mask = CREW_ARENA_ALIGNMENT - 1;
    if (arena->next == place + ((size + mask) & ~mask))
        arena->next -= (size - used) & ~mask;
}

void *crew_arena_zalloc(crew_arena *arena, size_t size)
{
    void *place = crew_arena_alloc(arena, size);
    if (place)
        memset(place, 0, size);
    return place;
}

crew_string crew_arena_string(crew_arena *arena, crew_string text)
{
    char *copy = crew_arena_alloc(arena, text.size + 1);
    if (!copy)
        return (crew_string){ 0 };
    if (text.size)
        memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    return (crew_string){ copy, text.size };
}

void crew_buffer_fini(crew_buffer *buffer)
{
    free(buffer->data);
    *buffer = (crew_buffer){ 0 };
}

void crew_buffer_clear(crew_buffer *buffer)
{
    if (buffer->capacity > KEPT_BYTES)
        crew_buffer_fini(buffer);
    buffer->size = 0;
    buffer->failed = false;
}

char *crew_buffer_grow(crew_buffer *buffer, size_t size)
{
    if (buffer->failed)
        return NULL;
    size_t capacity = buffer->capacity ? buffer->capacity : 256;
    while (capacity - buffer->size < size && capacity < SIZE_MAX / 4)
        capacity *= 2;
    char *data = capacity - buffer->size < size ? NULL : realloc(buffer->data, capacity);
    if (!data) {
        buffer->failed = true;
        return NULL;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return data + buffer->size;
}

char *crew_buffer_extend(crew_buffer *buffer, size_t size)
{
    char *place = crew_buffer_room(buffer, size);
    if (place)
        buffer->size += size;
    return place;
}

void crew_buffer_append(crew_buffer *buffer, const void *bytes, size_t size)
{
    char *place = size ? crew_buffer_extend(buffer, size) : NULL;
    if (place)
        memcpy(place, bytes, size);
}

void crew_buffer_text(crew_buffer *buffer, const char *text)
{
    crew_buffer_append(buffer, text, strlen(text));
}

void crew_buffer_printf(crew_buffer *buffer, const char *format, ...)
{
    char small[256];
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int size = vsnprintf(small, sizeof small, format, arguments);
    va_end(arguments);
    if (size >= 0 && (size_t)size < sizeof small) {
        crew_buffer_append(buffer, small, (size_t)size);
    } else if (size >= 0) {
        char *place = crew_buffer_extend(buffer, (size_t)size + 1); /* vsnprintf writes a NUL */
        if (place) {
            (void)vsnprintf(place, (size_t)size + 1, format, again);
            buffer->size--;
        }
    }
    va_end(again);
}

crew_string crew_buffer_move(crew_buffer *buffer, crew_arena *arena)
{
    crew_string moved = { 0 };
    if (!buffer->failed)
        moved = crew_arena_string(arena, crew_buffer_string(buffer));
    crew_buffer_fini(buffer);
    return moved;
}

crew_status crew_buffer_give(crew_buffer *buffer, crew_status status, crew_bytes *bytes)
{
    if (status == CREW_OK)
        crew_buffer_append(buffer, "", 1);
    if (status == CREW_OK && buffer->failed)
        status = CREW_NO_MEMORY;
    if (status == CREW_OK)
        *bytes = (crew_bytes){ buffer->data, buffer->size - 1 };
    else
        crew_buffer_fini(buffer);
    *buffer = (crew_buffer){ 0 };
    return status;
}
