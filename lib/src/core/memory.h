/* Large pieces of memory, which go back to the system when they are freed, as malloc's may not. */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include <rpcrew/impl/memory.h>

/* NULL without memory. Small ones are malloc's. */
void *crew_pages_new(size_t size);
/* size is what it was made with; NULL is fine. */
void crew_pages_free(void *pages, size_t size);

/* Gives back what of an allocation's size is not used, if it is still the newest. */
void crew_arena_trim(crew_arena *arena, const char *place, size_t size, size_t used);

#endif
