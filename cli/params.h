/* Params from the words of a command line. */
#ifndef CLI_PARAMS_H
#define CLI_PARAMS_H

#include <rpcrew.h>

/* Each word is JSON, or else a string; @file is what is in the file and - what comes on standard input (a
 * string, or bytes if it is no UTF-8 or if as_bytes). name=value words make an object, others an array, no
 * words no params (NULL). CREW_BAD_ARGUMENT with *why: both kinds, an unreadable file. */
CREW_NODISCARD crew_status cli_params(crew_arena *arena, char *const *words, size_t count, bool as_bytes,
                                      const crew_value **params, crew_error *why);

#endif
