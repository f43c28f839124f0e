/* Base64 (RFC 4648 section 4): how bytes travel in JSON. */
#ifndef CORE_BASE64_H
#define CORE_BASE64_H

#include <rpcrew/impl/memory.h>

void crew_base64_encode(crew_string bytes, crew_buffer *out);

/* Strict: padded, no line breaks, no stray bits. CREW_MALFORMED, CREW_NO_MEMORY. */
CREW_NODISCARD crew_status crew_base64_decode(crew_string text, crew_arena *arena, crew_string *bytes);

#endif
