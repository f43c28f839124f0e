#include "support/allocations.h"

#include <jansson.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__real_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *pages, size_t size);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *pages, size_t size);
char *__wrap_strdup(const char *text);

static atomic_size_t until_failure; /* 1: the next one; 0: none */
static atomic_bool failed;
static atomic_size_t live, bytes, start, most;

void allocations_fail(size_t nth)
{
    atomic_store(&failed, false);
    atomic_store(&until_failure, nth);
}

bool allocations_failed(void)
{
    return atomic_load(&failed);
}

size_t allocations_live(void)
{
    return atomic_load(&live);
}

void allocations_measure(void)
{
    atomic_store(&start, atomic_load(&bytes));
    atomic_store(&most, atomic_load(&bytes));
}

size_t allocations_most_bytes(void)
{
    return atomic_load(&most) - atomic_load(&start);
}

static bool fails(void)
{
    size_t left = atomic_load(&until_failure);
    while (left && !atomic_compare_exchange_weak(&until_failure, &left, left - 1))
        continue;
    if (left == 1)
        atomic_store(&failed, true);
    return left == 1;
}

static void count(size_t size)
{
    atomic_fetch_add(&live, 1);
    size_t now = atomic_fetch_add(&bytes, size) + size;
    size_t before = atomic_load(&most);
    while (now > before && !atomic_compare_exchange_weak(&most, &before, now))
        continue;
}

static void *enter(void *block)
{
    if (block)
        count(malloc_usable_size(block));
    return block;
}

static void leave(void *block)
{
    if (!block)
        return;
    atomic_fetch_sub(&live, 1);
    atomic_fetch_sub(&bytes, malloc_usable_size(block));
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : enter(__real_malloc(size));
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : enter(__real_calloc(count, size));
}

void *__wrap_realloc(void *block, size_t size)
{
    if (fails())
        return NULL;
    /* Both may be in use for a moment, so the old one leaves after the new one has come. */
    size_t old = block ? malloc_usable_size(block) : 0;
    void *larger = __real_realloc(block, size);
    if (!larger)
        return NULL;
    (void)enter(larger);
    atomic_fetch_sub(&bytes, old);
    atomic_fetch_sub(&live, block != NULL);
    return larger;
}

void __wrap_free(void *block)
{
    leave(block);
    __real_free(block);
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (fails())
        return MAP_FAILED;
    void *pages = __real_mmap(at, size, protection, flags, fd, offset);
    if (pages != MAP_FAILED)
        count(size);
    return pages;
}

int __wrap_munmap(void *pages, size_t size)
{
    atomic_fetch_sub(&live, 1);
    atomic_fetch_sub(&bytes, size);
    return __real_munmap(pages, size);
}

char *__wrap_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = __wrap_malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

static void *good_malloc(size_t size)
{
    return enter(__real_malloc(size));
}

void allocations_take_jansson(bool failing)
{
    json_set_alloc_funcs(failing ? __wrap_malloc : good_malloc, __wrap_free);
}
