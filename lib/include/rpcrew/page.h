/* A page for people: the methods of a service, and a form to call each. */
#ifndef RPCREW_PAGE_H
#define RPCREW_PAGE_H

#include <rpcrew/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* HTML in UTF-8, complete: it loads nothing but openrpc.json, beside the path that it is at itself, which is
 * the result of rpc.discover, and calls by POST to that path, as JSON-RPC. Workers show it at http:// and
 * ws:// endpoints; this is for those who have an HTTP server of their own. For the process's life; any
 * thread. */
CREW_API crew_string crew_page(void);

#ifdef __cplusplus
}
#endif
#endif
