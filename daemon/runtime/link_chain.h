// Which directory entries decide what a path means.

#pragma once

#include <string>

namespace apikeyd {

/// Told of a path's way by walk_link_chain(). Directory names it is given contain no symbolic link.
class LinkChainVisitor {
  public:
    virtual ~LinkChainVisitor() = default;

    /// The path runs through `directory`.
    virtual void passing(const std::string& directory) = 0;

    /// What stands under `name` in `directory` decides the path: the file itself, a symbolic link on the way,
    /// or the first entry that is missing. Called before the entry is looked at, so that a visitor who
    /// watches the directory from here on is told of every later change. False when the directory has just
    /// gone: the walk ends.
    [[nodiscard]] virtual bool deciding(const std::string& directory, const std::string& name) = 0;
};

/// Follows `path` (absolute) one symbolic link at a time, as the kernel would, to the file or to the first
/// entry that is missing. /etc/keys.yaml -> ..data/keys.yaml with ..data -> ..2026/ tells (/etc, keys.yaml),
/// (/etc, ..data),
/// (/etc/..2026, keys.yaml). Stops after 40 links, the kernel's own limit. False when deciding() ended it.
[[nodiscard]] bool walk_link_chain(const std::string& path, LinkChainVisitor& visitor);

}  // namespace apikeyd
