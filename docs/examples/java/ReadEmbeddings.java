// Prints the vectors of an embeddings topic, up to its end as it is now.
//
//   java -cp "build/jars/kafka/*:build/jars/protobuf/*" docs/examples/java/ReadEmbeddings.java \
//       127.0.0.1:9092 embeddings proto/released/v0.1.0.txtpb
//
// A line is a document: its id, the vector's dimension, how many fields the record has that the
// released version does not know, and the first numbers of the vector, with tabs between. A fourth
// argument says how many numbers.

import com.google.protobuf.ByteString;
import com.google.protobuf.DescriptorProtos.FileDescriptorProto;
import com.google.protobuf.DescriptorProtos.FileDescriptorSet;
import com.google.protobuf.Descriptors.Descriptor;
import com.google.protobuf.Descriptors.DescriptorValidationException;
import com.google.protobuf.Descriptors.FileDescriptor;
import com.google.protobuf.DynamicMessage;
import com.google.protobuf.TextFormat;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.StringJoiner;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringDeserializer;

public final class ReadEmbeddings {
  private static final String MESSAGE = "headrace.v1.Embedding";

  public static void main(String[] arguments) throws Exception {
    if (arguments.length < 3) {
      System.err.println("needs: BOOTSTRAP_SERVERS TOPIC RELEASED [NUMBERS]");
      System.exit(2);
    }
    int numbers = arguments.length > 3 ? Integer.parseInt(arguments[3]) : 4;
    Descriptor embedding = released(Path.of(arguments[2]));
    try (var consumer = consumer(arguments[0])) {
      List<TopicPartition> partitions = new ArrayList<>();
      for (var partition : consumer.partitionsFor(arguments[1])) {
        partitions.add(new TopicPartition(partition.topic(), partition.partition()));
      }
      consumer.assign(partitions);
      consumer.seekToBeginning(partitions);
      Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
      // A position passes aborted records and markers too, which are never given to a reader.
      while (ends.entrySet().stream().anyMatch(e -> consumer.position(e.getKey()) < e.getValue())) {
        for (var record : consumer.poll(Duration.ofMillis(200))) {
          System.out.println(line(record, embedding, numbers));
        }
      }
    }
  }

  /** A consumer that sees nothing of aborted transactions, which is not Java's default. */
  private static KafkaConsumer<String, byte[]> consumer(String servers) {
    Map<String, Object> settings =
        Map.of(
            "bootstrap.servers", servers,
            "isolation.level", "read_committed",
            "enable.auto.commit", false);
    return new KafkaConsumer<>(settings, new StringDeserializer(), new ByteArrayDeserializer());
  }

  /** The message as a release has it: no generated code, and fields of later releases are kept. */
  private static Descriptor released(Path path)
      throws IOException, DescriptorValidationException {
    var set = FileDescriptorSet.newBuilder();
    TextFormat.merge(Files.readString(path), set);
    Map<String, FileDescriptor> files = new HashMap<>();
    for (FileDescriptorProto file : set.getFileList()) {
      var imports = file.getDependencyList().stream().map(files::get).toArray(FileDescriptor[]::new);
      files.put(file.getName(), FileDescriptor.buildFrom(file, imports));
    }
    for (FileDescriptor file : files.values()) {
      for (Descriptor message : file.getMessageTypes()) {
        if (message.getFullName().equals(MESSAGE)) {
          return message;
        }
      }
    }
    throw new IllegalArgumentException(path + ": has no " + MESSAGE);
  }

  private static String line(ConsumerRecord<String, byte[]> record, Descriptor kind, int numbers)
      throws IOException {
    if (record.value() == null) {
      return record.key() + "\tdeleted";
    }
    DynamicMessage message = DynamicMessage.parseFrom(kind, record.value());
    float[] vector =
        floats(
            (ByteString) message.getField(kind.findFieldByName("vector")),
            (String) message.getField(kind.findFieldByName("dtype")));
    var line = new StringJoiner("\t");
    line.add((String) message.getField(kind.findFieldByName("id")));
    line.add(message.getField(kind.findFieldByName("dimension")).toString());
    line.add(String.valueOf(message.getUnknownFields().asMap().size()));
    for (int i = 0; i < Math.min(numbers, vector.length); i++) {
      line.add(Float.toString(vector[i]));
    }
    return line.toString();
  }

  private static float[] floats(ByteString bytes, String dtype) {
    ByteBuffer buffer = bytes.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN);
    boolean half = dtype.equals("float16");
    if (!half && !dtype.equals("float32")) {
      throw new IllegalArgumentException("dtype " + dtype + ": neither float32 nor float16");
    }
    float[] vector = new float[bytes.size() / (half ? 2 : 4)];
    for (int i = 0; i < vector.length; i++) {
      vector[i] = half ? widened(buffer.getShort()) : buffer.getFloat();
    }
    return vector;
  }

  /** A float16's value; from Java 20 on, Float.float16ToFloat does it. */
  private static float widened(short half) {
    int exponent = half >> 10 & 0x1f;
    int fraction = half & 0x3ff;
    float size;
    if (exponent == 0) {
      size = fraction * 0x1p-24f; // subnormal
    } else if (exponent == 31) {
      size = fraction == 0 ? Float.POSITIVE_INFINITY : Float.NaN;
    } else {
      size = (1024 + fraction) * (float) Math.pow(2, exponent - 25);
    }
    return half < 0 ? -size : size;
  }
}
