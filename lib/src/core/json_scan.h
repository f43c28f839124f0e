/* One pass over JSON text before it is parsed: limits, and what the parser would not tell. */
#ifndef CORE_JSON_SCAN_H
#define CORE_JSON_SCAN_H

#include "core/json.h"

/* Enforces the limits on depth, strings, items and batches, fills notes, and sets *text to what is to be
 * parsed: the text itself, or a copy in the arena in which integers beyond int64_t are 0. It does not check
 * grammar: the parser does. CREW_LIMIT with *why, CREW_NO_MEMORY. */
CREW_NODISCARD crew_status crew_json_scan(crew_string *text, const crew_limits *limits, crew_arena *arena,
                                          struct crew_json_notes *notes, crew_error *why);

#endif
