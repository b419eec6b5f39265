/* help_route.h — `coe help route`. */
#ifndef COE_HELP_ROUTE_H
#define COE_HELP_ROUTE_H

/* The language of --route, with every selection of the registry and its settings. */
void help_route(void);

#endif
