# The launcher runs before each command that is watched: forty shared libraries cost it more than all that it does
# itself (docs/decisions/0014). What only `nodeleak` needs is linked into it where there is an archive.

# find_library(VARIABLE NAME) that prefers libNAME.a.
macro(find_archive variable name)
  find_library(${variable} NAMES lib${name}.a ${name} REQUIRED)
endmacro()

# Points the targets absl::NAME..., and what they need, at archives.
function(use_archives_of_absl)
  set(seen)
  set(todo ${ARGN})
  while(todo)
    list(POP_FRONT todo target)
    if(target IN_LIST seen OR NOT target MATCHES "^absl::" OR NOT TARGET ${target})
      continue()
    endif()
    list(APPEND seen ${target})
    get_target_property(needs ${target} INTERFACE_LINK_LIBRARIES)
    if(needs)
      list(APPEND todo ${needs})
    endif()
    get_target_property(configurations ${target} IMPORTED_CONFIGURATIONS)
    foreach(configuration IN LISTS configurations)
      get_target_property(location ${target} IMPORTED_LOCATION_${configuration})
      if(location)
        string(REGEX REPLACE "\\.so[.0-9]*$" ".a" archive ${location})
        if(EXISTS ${archive})
          set_target_properties(${target} PROPERTIES IMPORTED_LOCATION_${configuration} ${archive})
        endif()
      endif()
    endforeach()
  endwhile()
endfunction()
