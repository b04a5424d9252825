import Foundation
import FuzzCases
import Testing

/// The corpora of Fuzz/, and with them every find: none of them makes a target trap.
struct CorpusTests {
  static let corpora = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../Fuzz/Corpora")

  static func inputs(of target: FuzzTarget) throws -> [URL] {
    try FileManager.default.contentsOfDirectory(
      at: corpora.appending(path: target.rawValue), includingPropertiesForKeys: nil
    ).sorted { $0.path < $1.path }
  }

  @Test(arguments: FuzzTarget.allCases) func noInputOfTheCorpusIsAFind(target: FuzzTarget) throws {
    let inputs = try Self.inputs(of: target)
    #expect(!inputs.isEmpty, "a corpus is committed")
    for input in inputs { target.run([UInt8](try Data(contentsOf: input))) }
  }

  /// No folder lies there that no target has, and none is missing.
  @Test func eachCorpusBelongsToATarget() throws {
    let folders = try FileManager.default.contentsOfDirectory(atPath: Self.corpora.path)
    #expect(Set(folders) == Set(FuzzTarget.allCases.map(\.rawValue)))
  }
}
