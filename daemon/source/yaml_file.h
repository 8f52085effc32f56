// The key set as a YAML file. yaml_source.h has its form.

#pragma once

#include "source/source.h"
#include "source/store.h"

namespace apikeyd {

class YamlFile final : public Source, public Store {
  public:
    explicit YamlFile(std::string path) : path_(std::move(path)) {}

    [[nodiscard]] const std::string& place() const override { return path_; }
    /// The fingerprint is the text's SHA-256. Errors are those of parse_key_set(), one a line.
    Result<std::optional<SourceContent>> load(const std::optional<Fingerprint>& unless,
                                              const RowSink& sink) override;
    /// An earlier text may be put back.
    [[nodiscard]] bool tells_changes() const override { return false; }
    /// A text does not say what changed.
    Result<std::optional<SourceChanges>> changes_since(const Fingerprint&) override { return std::nullopt; }

    /// By rewrite_file(): only what the edit touches is written anew.
    Result<Rewrite> change(const Edit& edit, const ChangeOptions& options) override;
    Result<std::optional<KeyRow>> find(std::string_view id) override;

  private:
    std::string path_;
};

}  // namespace apikeyd
