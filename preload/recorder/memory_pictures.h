// Runs inside node. Memory pictures (memory/picture.h) of this process into the recording: one at the end, the latest
// one on the way up to the peak of the RSS, one when the RSS crosses --on-rss.
#pragma once

#include <stdint.h>

#include "preload/recorder/recording_file.h"
#include "recording/layout.h"

namespace nodeleak::preload {

void AttachPictures(RecordingFile* file);

// Watcher thread: takes a picture when the RSS has grown by a tenth since the last one, or crossed --on-rss. Which, or
// kNone.
recording::PictureMoment PictureIfDue(uint64_t rss_bytes);

// Any thread. At most kLongestPictureNs and what it waits for locks, then the picture is marked as cut.
void TakePicture(recording::PictureMoment moment);

// The thread that freezes does not wait for a picture on the watcher thread: it is given up. None is due afterwards.
void StopPictures();

// The freeze was taken back: the picture of the end goes.
void RestartPictures();

// For the next recording of the same process.
void ForgetPictures();

}  // namespace nodeleak::preload
