/* Values as the command line prints them. */
#ifndef CLI_SHOW_H
#define CLI_SHOW_H

#include <rpcrew.h>

/* The value as JSON can say it: bytes as hex digits, ext as {"ext": type, "data": hex}, keys that are no
 * strings as their text, NaN and the infinities as words. CREW_NO_MEMORY. */
CREW_NODISCARD crew_status cli_show(crew_arena *arena, const crew_value *value, const crew_value **shown);

#endif
