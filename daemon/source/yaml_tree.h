// A part of a YAML text that is small enough to be looked at as a whole.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "source/yaml_events.h"

namespace apikeyd {

/// A scalar, a list or a mapping with its place. A mapping's children are name, value, name, value.
struct YamlNode {
    enum class Kind : uint8_t { kScalar, kList, kMap };

    Kind kind = Kind::kScalar;
    YamlScalarKind scalar = YamlScalarKind::kNull;
    std::string text;
    YamlPlace place;
    std::vector<YamlNode> children;
};

/// Builds one from the events of a list or a mapping, its own start and end included.
class YamlTree {
  public:
    void on_scalar(const YamlScalar& scalar) {
        add({YamlNode::Kind::kScalar, scalar.kind, std::string(scalar.text), scalar.place, {}});
    }
    void on_begin(YamlPlace place, bool map) {
        add({map ? YamlNode::Kind::kMap : YamlNode::Kind::kList, YamlScalarKind::kNull, {}, place, {}});
        // Pointers into the last child stay good: nothing is added before it is complete.
        open_.push_back(open_.empty() ? root_.get() : &open_.back()->children.back());
    }
    void on_end() { open_.pop_back(); }

    bool done() const { return root_ != nullptr && open_.empty(); }
    const YamlNode& root() const { return *root_; }

  private:
    void add(YamlNode node) {
        if (open_.empty()) {
            root_ = std::make_unique<YamlNode>(std::move(node));
        } else {
            open_.back()->children.push_back(std::move(node));
        }
    }

    std::unique_ptr<YamlNode> root_;
    std::vector<YamlNode*> open_;
};

}  // namespace apikeyd
