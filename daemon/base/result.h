// The daemon's and the tool's name for Result, Error and fail(); see shm/result.h.

#pragma once

#include "shm/result.h"

namespace apikeyd {

using apikey::shm::Error;
using apikey::shm::fail;
using apikey::shm::Result;

}  // namespace apikeyd
