// Runs inside the program, on the recorder's own thread. A function of the allocator whose beginning could not be
// replaced is hooked in the links (GOT, PLT) by which the loaded libraries call it. The tracer does that once; what is
// loaded later is looked after here, also when the tracer has gone and the recorder was kept.
#pragma once

namespace nodeleak::preload {

// Some times a second, from the moment the tracer has hooked what was there. Nothing to do while no library comes or
// goes: a look at two numbers under the dynamic linker's lock.
void HookLaterLinks();

// A new recording: all libraries are looked at again.
void ForgetLinks();

}  // namespace nodeleak::preload
